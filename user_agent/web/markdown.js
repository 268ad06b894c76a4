// Markdown of an answer as elements. Only what is listed here becomes one; all else is text. Nothing in it is loaded or
// can be followed: an image and a link are shown as their text and address, since whoever wrote them may be a core that attacks.

import { el } from "/web/dom.js";

const FENCE = /^ {0,3}(```+|~~~+)[^`]*$/;
const HEADING = /^ {0,3}#{1,6} +(.*?)(?: +#+)? *$/d;
const RULE = /^ {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*]|\d{1,9}[.)]) +(?=\S)/;
const DASHES = /^ *\|? *:?-+:? *(?:\| *:?-+:? *)*\|? *$/;

const INLINE = [
  // Beside emphasis stands no letter or digit, and in front no slash: 2*3*4, snake_case, notes/*.md and __init__ are none.
  { name: "escape", pattern: /\\([\\`*_{}[\]()#+\-.!|~>])/dy },
  { name: "code", pattern: /(?<!`)(`+)(?!`)((?:(?!\1).)+?)\1(?!`)/dy },
  { name: "image", pattern: /!\[([^\]]*)\]\(([^)\s]+)[^)]*\)/dy },
  { name: "link", pattern: /\[([^\]]+)\]\(([^)\s]+)[^)]*\)/dy },
  { name: "strong", pattern: /(?<![\p{L}\p{N}/])(\*\*)(?=\S)(.+?)(?<=\S)\1(?![\p{L}\p{N}])/duy },
  { name: "em", pattern: /(?<![\p{L}\p{N}*_/])([*_])(?=[^\s*_])(.+?)(?<=[^\s*_])\1(?![\p{L}\p{N}*_])/duy },
  { name: "del", pattern: /(~~)(?=\S)(.+?)(?<=\S)~~/dy },
];

/** The elements of a text; `leaf(start, end)` gives the nodes of a part of it that is shown as it is. */
export function markdown(text, leaf = (start, end) => [text.slice(start, end)]) {
  let at = 0;
  const lines = text.split("\n").map((line) => {
    const found = { text: line, at };
    at += line.length + 1;
    return found;
  });
  return blocks(lines, leaf);
}

/** Lines are {text, at}: what is left of a line, and where that begins in the whole text. */
function blocks(lines, leaf) {
  const found = [];
  let next = 0;
  while (next < lines.length) {
    const read = [blank, fenced, heading, rule, quote, list, tabular, paragraph];
    for (const block of read) {
      const made = block(lines, next, leaf);
      if (!made) continue;
      if (made.element) found.push(made.element);
      next = made.next;
      break;
    }
  }
  return found;
}

const blank = (lines, at) => (lines[at].text.trim() ? null : { next: at + 1 });

function fenced(lines, at, leaf) {
  const fence = lines[at].text.match(FENCE)?.[1];
  if (!fence) return null;
  let end = at + 1;
  while (end < lines.length && !(lines[end].text.trim().startsWith(fence) && FENCE.test(lines[end].text))) end += 1;
  return { element: el("pre", { tabIndex: 0 }, el("code", {}, plain(lines.slice(at + 1, end), leaf))), next: end + 1 };
}

function heading(lines, at, leaf) {
  const match = lines[at].text.match(HEADING);
  return match && { element: el("p", { className: "md-heading" }, part(match, 1, lines[at].at, leaf)), next: at + 1 };
}

const rule = (lines, at) => (RULE.test(lines[at].text) ? { element: el("hr"), next: at + 1 } : null);

function quote(lines, at, leaf) {
  let end = at;
  while (end < lines.length && QUOTE.test(lines[end].text)) end += 1;
  const inner = lines.slice(at, end).map((line) => cut(line, line.text.match(QUOTE)[0].length));
  return end > at ? { element: el("blockquote", {}, blocks(inner, leaf)), next: end } : null;
}

function list(lines, at, leaf) {
  const first = lines[at].text.match(ITEM);
  if (!first) return null;
  const isOrdered = (marker) => /\d/.test(marker);
  const items = [];
  let end = at;
  for (let match = first; match && isOrdered(match[2]) === isOrdered(first[2]); match = lines[end]?.text.match(ITEM)) {
    const [inner, width] = [[cut(lines[end], match[0].length)], match[0].length];
    for (end += 1; end < lines.length && belongs(lines, end, match[1].length); end += 1)
      inner.push(cut(lines[end], Math.min(width, indent(lines[end]))));
    items.push(el("li", isOrdered(match[2]) ? { value: parseInt(match[2], 10) } : {}, blocks(inner, leaf)));
    if (lines[end]?.text.match(ITEM)?.[1].length < first[1].length) break;
  }
  return { element: el(isOrdered(first[2]) ? "ol" : "ul", { className: "md-list" }, items), next: end };
}

/** Whether a line is part of the item before it: indented further, or an empty line with such a one behind. */
function belongs(lines, at, depth) {
  const line = lines[at].text.trim() ? lines[at] : lines[at + 1];
  return Boolean(line?.text.trim()) && indent(line) > depth;
}

function tabular(lines, at, leaf) {
  if (!lines[at].text.includes("|") || !DASHES.test(lines[at + 1]?.text ?? "") || !lines[at + 1].text.includes("-")) return null;
  let end = at + 2;
  while (end < lines.length && lines[end].text.includes("|")) end += 1;
  const row = (line, tag) => el("tr", {}, cells(line).map(([start, stop]) =>
    el(tag, {}, inline(line.text.slice(start, stop), line.at + start, leaf))));
  return { element: el("div", { className: "scroll", tabIndex: 0 }, el("table", {}, el("thead", {}, row(lines[at], "th")),
    el("tbody", {}, lines.slice(at + 2, end).map((line) => row(line, "td"))))), next: end };
}

/** Where the cells of a row begin and end. */
function cells({ text }) {
  const bars = [...text.matchAll(/(?<!\\)\|/g)].map(({ index }) => index);
  const borders = [...(text.trimStart().startsWith("|") ? [] : [-1]), ...bars, ...(text.trimEnd().endsWith("|") ? [] : [text.length])];
  return borders.slice(1).map((stop, index) => [borders[index] + 1, stop]);
}

function paragraph(lines, at, leaf) {
  const starts = [FENCE, HEADING, RULE, QUOTE, ITEM];
  let end = at + 1;
  while (end < lines.length && lines[end].text.trim() && !starts.some((start) => start.test(lines[end].text))) end += 1;
  const shown = lines.slice(at, end).flatMap((line, index) => [...(index ? ["\n"] : []), ...inline(line.text, line.at, leaf)]);
  return { element: el("p", {}, shown), next: end };
}

const indent = ({ text }) => text.length - text.trimStart().length;
const cut = ({ text, at }, count) => ({ text: text.slice(count), at: at + count });
const plain = (lines, leaf) => lines.flatMap(({ text, at }, index) => [...(index ? ["\n"] : []), ...leaf(at, at + text.length)]);
const part = (match, group, at, leaf) => inline(match[group], at + match.indices[group][0], leaf);

function inline(text, at, leaf) {
  const found = [];
  let [from, next] = [0, 0];
  while (next < text.length) {
    const made = marked(text, next, at, leaf);
    if (!made) {
      next += 1;
      continue;
    }
    if (next > from) found.push(...leaf(at + from, at + next));
    found.push(...made.nodes);
    from = next = made.end;
  }
  return from < text.length ? [...found, ...leaf(at + from, at + text.length)] : found;
}

/** What a mark at a place of a line becomes, and where it ends; null if there is none. */
function marked(text, place, at, leaf) {
  for (const { name, pattern } of INLINE) {
    pattern.lastIndex = place;
    const match = pattern.exec(text);
    const end = pattern.lastIndex; // which marks inside of this one change
    if (match) return { nodes: nodesOf(name, match, at, leaf), end };
  }
  return null;
}

function nodesOf(name, match, at, leaf) {
  const raw = (group) => leaf(at + match.indices[group][0], at + match.indices[group][1]);
  if (name === "escape") return raw(1);
  if (name === "code") return [el("code", {}, raw(2))];
  if (name === "image") return [el("span", { className: "md-address" }, "image “", raw(1), "” (", raw(2), ")")];
  if (name === "link") return [...part(match, 1, at, leaf), el("span", { className: "md-address" }, " (", raw(2), ")")];
  return [el(name, {}, part(match, 2, at, leaf))];
}
