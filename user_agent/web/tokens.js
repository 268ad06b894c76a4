// An answer's text with who led at each token marked: by its underline, with a glyph, and said to screen readers.
// Where tokens are cited, the number of their passage stands behind them, and what passages disagree about is marked too.

import { withCard } from "/web/card.js";
import { disagreement, place } from "/web/citations.js";
import { el } from "/web/dom.js";
import { percent, share, shares } from "/web/format.js";
import { markdown } from "/web/markdown.js";

/** Who led, and how it is shown; where both models would have said the same nothing is marked. */
export const LEADERS = {
  documents: { glyph: "◆", said: "led by your documents" },
  core: { glyph: "○", said: "led by the core" },
};

/** The text of tokens, as Markdown; `passages` are those that the private model had. */
export function markedText(tokens, passages) {
  const text = tokens.map((token) => token.text).join("");
  const isMarked = (run) => LEADERS[run.leader] || run.citation !== null || run.conflict;
  const all = runs(tokens);
  const leaf = (start, end) => all.filter((run) => run.at < end && run.at + run.text.length > start).flatMap((run) => {
    const at = Math.max(run.at, start);
    const shown = { ...run, at, text: text.slice(at, Math.min(run.at + run.text.length, end)) };
    return isMarked(run) ? mark(shown, text, passages) : [shown.text];
  });
  const first = text.length - text.trimStart().length;
  return markdown(text.slice(first), (start, end) => leaf(first + start, first + end));
}

/** What the marks mean, if there are any. */
export function leadersLegend(tokens) {
  if (!tokens.some((token) => LEADERS[leader(token, tokens)])) return null;
  const entries = Object.entries(LEADERS).map(([name, { glyph, said }]) =>
    el("span", {}, el("span", { className: `led ${name}` }, "word", el("span", { className: "glyph" }, glyph)), ` ${said}`));
  return el("p", { className: "legend", "aria-hidden": "true" }, entries, el("span", {}, "unmarked: both agree"));
}

/** Smallest and largest λ of the tokens, where there is one for each. */
export const lambdasOf = (tokens) => shares(tokens.map((token) => token.lambda_user));

/** The side that led at a token; nobody where only one took part. An older answer only says what was changed. */
export function leader(token, tokens) {
  const tookPart = (name) => tokens.some((one) => one[name] !== null && one[name] !== undefined);
  if (!tookPart("core_p") || !tookPart("user_p")) return null;
  return token.led_by ?? (token.is_changed ? "documents" : "both");
}

/** The tokens of a text, where an answer ended in the middle of a block: the last one may be cut. */
export function tokensOf(text, tokens) {
  const whole = tokens.map((token) => token.text).join("");
  let left = whole.length - whole.trimStart().length + text.length;
  const shown = tokens.map((token) => {
    const cut = token.text.slice(0, Math.max(0, left));
    left -= token.text.length;
    return { ...token, text: cut };
  });
  return shown.filter((token) => token.text);
}

/** The same tokens, each with the conflict that it is part of. */
export function withConflicts(tokens, conflicts) {
  const isIn = (index) => ({ position, length }) => position <= index && index < position + length;
  return tokens.map((token, index) => ({ ...token, conflict: conflicts?.find(isIn(index)) }));
}

/** Neighbours that are marked alike, together: [{text, tokens, leader, citation, conflict, at}]. */
function runs(tokens) {
  const found = [];
  let at = 0;
  for (const token of tokens) {
    const [last, led, { text, citation = null, conflict }] = [found.at(-1), leader(token, tokens), token];
    if (last?.leader === led && last.citation === citation && last.conflict === conflict) {
      last.text += text;
      last.tokens.push(token);
    } else found.push({ text, tokens: [token], leader: led, citation, conflict, at });
    at += text.length;
  }
  return found;
}

function mark(run, text, passages) {
  const shown = run.text.trim();
  if (!shown) return [run.text];
  const [before, after] = [run.text.match(/^\s*/)[0], run.text.match(/\s*$/)[0]];
  const kinds = { led: LEADERS[run.leader], [run.leader]: LEADERS[run.leader], cited: run.citation !== null, disputed: run.conflict };
  const marked = el("button", {
    type: "button",
    className: Object.keys(kinds).filter((kind) => kinds[kind]).join(" "),
    "aria-label": [shown, ...said(run, passages)].join(", "),
  }, shown, glyph(run));
  const words = wordsAround(text, run.at + before.length, run.at + run.text.length);
  const found = run.leader === "documents" ? passagesWith(words, passages) : [];
  const sources = run.citation === null ? found : [passages[run.citation]].filter(Boolean);
  return [before, withCard(marked, () => tokenCard(run.tokens, sources, run.conflict, passages)), after];
}

function said({ leader: led, tokens, citation, conflict }, passages) {
  const lambdas = LEADERS[led] && lambdasOf(tokens);
  const from = passages[citation] ? place(passages[citation]) : citation;
  return [LEADERS[led]?.said, lambdas && `λ ${lambdas}`, from && `from ${from}`, conflict && "your notes disagree"].filter(Boolean);
}

function glyph({ leader: led, citation, conflict }) {
  const number = typeof citation === "number" ? citation + 1 : citation && "✎";
  const shown = [LEADERS[led]?.glyph, number, conflict && "≠"].filter(Boolean).join(" ");
  return el("span", { className: "glyph", "aria-hidden": "true" }, shown);
}

/** The whole words that a part of a text belongs to: a token may be a piece of one. */
export function wordsAround(text, from, to) {
  const isWord = (character) => /[\p{L}\p{N}]/u.test(character ?? "");
  while (from > 0 && isWord(text[from - 1])) from -= 1;
  while (to < text.length && isWord(text[to])) to += 1;
  return text.slice(from, to).match(/[\p{L}\p{N}]+/gu) ?? [];
}

export function passagesWith(words, passages) {
  const wanted = words.map((word) => word.toLowerCase());
  const has = ({ text }) => (text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []).some((word) => wanted.includes(word));
  return passages.filter(has);
}

/** What both models gave each of some tokens, where the words stand in the documents, and what passages say otherwise. */
export function tokenCard(tokens, sources, conflict, passages) {
  const head = ["token", "core alone", "core", "private", "together", "λ"];
  return el("div", {},
    el("table", { className: "figures" },
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, tokens.map(tokenRow))),
    sources.length > 0 && el("ul", { className: "sources" }, sources.map((passage) =>
      el("li", {}, el("q", {}, passage.text), el("small", {}, place(passage))))),
    conflict && el("p", { className: "sources" }, disagreement(conflict, passages)));
}

function tokenRow(token) {
  const likely = [token.core_p, token.user_p, token.mixed_p].map((p) => [p, percent(p)]);
  return el("tr", {},
    el("th", { scope: "row" }, token.text.trim() || "␣"),
    el("td", {}, token.core_choice === null ? "–" : token.core_choice.trim() || "␣"),
    [...likely, [token.lambda_user, share(token.lambda_user)]].map(([p, shown]) => {
      const cell = el("td", { className: "p" }, shown);
      cell.style.setProperty("--p", `${100 * (p ?? 0)}%`);
      return cell;
    }));
}
