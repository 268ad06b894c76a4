// An answer's text with who led at each token marked: by its underline, with a glyph, and said to screen readers.

import { withCard } from "/web/card.js";
import { place } from "/web/citations.js";
import { el } from "/web/dom.js";
import { percent, share, shares } from "/web/format.js";

/** Who led, and how it is shown; where both models would have said the same nothing is marked. */
export const LEADERS = {
  documents: { glyph: "◆", said: "led by your documents" },
  core: { glyph: "○", said: "led by the core" },
};

/** The text of tokens; `passages` are those that the private model had. */
export function markedText(tokens, passages) {
  const text = tokens.map((token) => token.text).join("");
  const parts = runs(tokens).map((run) => (LEADERS[run.leader] ? mark(run, text, passages) : [run.text]));
  const children = parts.flat();
  if (typeof children[0] === "string") children[0] = children[0].trimStart();
  return children;
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

/** Neighbours with the same leader together: [{text, tokens, leader, at}]. */
function runs(tokens) {
  const found = [];
  let at = 0;
  for (const token of tokens) {
    const [last, led] = [found.at(-1), leader(token, tokens)];
    if (last?.leader === led) {
      last.text += token.text;
      last.tokens.push(token);
    } else found.push({ text: token.text, tokens: [token], leader: led, at });
    at += token.text.length;
  }
  return found;
}

function mark(run, text, passages) {
  const shown = run.text.trim();
  if (!shown) return [run.text];
  const [before, after] = [run.text.match(/^\s*/)[0], run.text.match(/\s*$/)[0]];
  const { glyph, said } = LEADERS[run.leader];
  const lambdas = lambdasOf(run.tokens);
  const led = el("button", {
    type: "button",
    className: `led ${run.leader}`,
    "aria-label": `${shown}, ${said}${lambdas && `, λ ${lambdas}`}`,
  }, shown, el("span", { className: "glyph", "aria-hidden": "true" }, glyph));
  const words = wordsAround(text, run.at + before.length, run.at + run.text.length);
  const found = run.leader === "documents" ? passagesWith(words, passages) : [];
  return [before, withCard(led, () => tokenCard(run.tokens, found)), after];
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

/** What both models gave each of some tokens, and where the words stand in the documents. */
export function tokenCard(tokens, passages) {
  const head = ["token", "core alone", "core", "private", "together", "λ"];
  return el("div", {},
    el("table", { className: "figures" },
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, tokens.map(tokenRow))),
    passages.length > 0 && el("ul", { className: "sources" }, passages.map((passage) =>
      el("li", {}, el("q", {}, passage.text), el("small", {}, place(passage))))));
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
