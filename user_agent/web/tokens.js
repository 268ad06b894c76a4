// An answer's text with what the private model changed marked: underlined, with a glyph, and said to screen readers.
// Where tokens are cited, the number of their passage stands behind them, and what passages disagree about is marked too.

import { withCard } from "/web/card.js";
import { disagreement, place } from "/web/citations.js";
import { el } from "/web/dom.js";
import { percent } from "/web/format.js";

/** The text of tokens; `passages` are those that the private model had. */
export function markedText(tokens, passages) {
  const text = tokens.map((token) => token.text).join("");
  const isMarked = (run) => run.isChanged || run.citation !== null || run.conflict;
  const parts = runs(tokens).map((run) => (isMarked(run) ? mark(run, text, passages) : [run.text]));
  const children = parts.flat();
  if (typeof children[0] === "string") children[0] = children[0].trimStart();
  return children;
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

/** Neighbours that are marked alike, together: [{text, tokens, isChanged, citation, conflict, at}]. */
export function runs(tokens) {
  const found = [];
  let at = 0;
  for (const token of tokens) {
    const { text, is_changed: isChanged, citation = null, conflict } = token;
    const last = found.at(-1);
    if (last?.isChanged === isChanged && last.citation === citation && last.conflict === conflict) {
      last.text += text;
      last.tokens.push(token);
    } else found.push({ text, tokens: [token], isChanged, citation, conflict, at });
    at += text.length;
  }
  return found;
}

function mark(run, text, passages) {
  const shown = run.text.trim();
  const [before, after] = [run.text.match(/^\s*/)[0], shown && run.text.match(/\s*$/)[0]];
  const kinds = { changed: run.isChanged, cited: run.citation !== null, disputed: run.conflict };
  const marked = el("button", {
    type: "button",
    className: Object.keys(kinds).filter((kind) => kinds[kind]).join(" "),
    "aria-label": [shown, ...said(run, passages)].join(", "),
  }, shown, glyph(run));
  const words = wordsAround(text, run.at + before.length, run.at + run.text.length);
  const sources = run.citation === null ? passagesWith(words, passages) : [passages[run.citation]].filter(Boolean);
  return [before, withCard(marked, () => tokenCard(run.tokens, sources, run.conflict, passages)), after];
}

function said({ isChanged, citation, conflict }, passages) {
  const from = passages[citation] ? place(passages[citation]) : citation;
  return [isChanged && "changed by your private model", from && `from ${from}`, conflict && "your notes disagree"].filter(Boolean);
}

function glyph({ isChanged, citation, conflict }) {
  const number = typeof citation === "number" ? citation + 1 : citation && "✎";
  const shown = [isChanged && "◆", number, conflict && "≠"].filter(Boolean).join(" ");
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
  const head = ["token", "core alone", "core", "private", "together"];
  return el("div", {},
    el("table", { className: "figures" },
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, tokens.map(tokenRow))),
    sources.length > 0 && el("ul", { className: "sources" }, sources.map((passage) =>
      el("li", {}, el("q", {}, passage.text), el("small", {}, place(passage))))),
    conflict && el("p", { className: "sources" }, disagreement(conflict, passages)));
}

function tokenRow(token) {
  const likely = [token.core_p, token.user_p, token.mixed_p];
  return el("tr", {},
    el("th", { scope: "row" }, token.text.trim() || "␣"),
    el("td", {}, token.core_choice === null ? "–" : token.core_choice.trim() || "␣"),
    likely.map((p) => {
      const cell = el("td", { className: "p" }, percent(p));
      cell.style.setProperty("--p", `${100 * (p ?? 0)}%`);
      return cell;
    }));
}
