// An answer's text with what the private model changed marked: underlined, with a glyph, and said to screen readers.

import { withCard } from "/web/card.js";
import { place } from "/web/citations.js";
import { el } from "/web/dom.js";
import { percent } from "/web/format.js";

/** The text of tokens; `passages` are those that the private model had. */
export function markedText(tokens, passages) {
  const text = tokens.map((token) => token.text).join("");
  const parts = runs(tokens).map((run) => (run.isChanged ? mark(run, text, passages) : [run.text]));
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

/** Neighbours that were changed, and those that were not, together: [{text, tokens, isChanged, at}]. */
export function runs(tokens) {
  const found = [];
  let at = 0;
  for (const token of tokens) {
    const last = found.at(-1);
    if (last?.isChanged === token.is_changed) {
      last.text += token.text;
      last.tokens.push(token);
    } else found.push({ text: token.text, tokens: [token], isChanged: token.is_changed, at });
    at += token.text.length;
  }
  return found;
}

function mark(run, text, passages) {
  const shown = run.text.trim();
  const [before, after] = [run.text.match(/^\s*/)[0], shown && run.text.match(/\s*$/)[0]];
  const changed = el("button", {
    type: "button",
    className: "changed",
    "aria-label": `${shown}, changed by your private model`,
  }, shown, el("span", { className: "glyph", "aria-hidden": "true" }, "◆"));
  const words = wordsAround(text, run.at + before.length, run.at + run.text.length);
  return [before, withCard(changed, () => tokenCard(run.tokens, passagesWith(words, passages))), after];
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
  const head = ["token", "core alone", "core", "private", "together"];
  return el("div", {},
    el("table", { className: "figures" },
      el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, tokens.map(tokenRow))),
    passages.length > 0 && el("ul", { className: "sources" }, passages.map((passage) =>
      el("li", {}, el("q", {}, passage.text), el("small", {}, place(passage))))));
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
