// The passages that an answer could read: where they stand, what they say on request, and which ones did not fit.

import { el } from "/web/dom.js";
import { counted, fileName } from "/web/format.js";

/** File name with page, slide, sheet and row, or line. */
export function place({ source, page, slide, sheet, line }) {
  const row = sheet && line ? `, row ${line}` : "";
  const where = page ? `page ${page}` : slide ? `slide ${slide}` : sheet ? `sheet ${sheet}${row}` : line ? `line ${line}` : "";
  return [fileName(source), where].filter(Boolean).join(", ");
}

/** A passage's text behind its headings. */
export const headed = ({ heading, text }) => (heading ? [el("strong", {}, `${heading}: `), text] : text);

/** What the passages of a conflict say, as a sentence. */
export function disagreement({ passages: sides }, passages) {
  const says = sides.map(({ citation, would_say: words }) => `${place(passages[citation])} says “${words}”`);
  return `${sides.length === 2 ? "Two" : sides.length} of your notes disagree: ${says.join("; ")}.`;
}

/** `isNumbered` where tokens name their passages by number. */
export function citationList(passages, leftOut = [], isNumbered = false) {
  if (!passages.length && !leftOut.length) return null;
  const name = (passage) => (passage.is_cut ? `${place(passage)}, in part` : place(passage));
  return el("section", { className: "citations", "aria-label": "Passages from your documents" },
    passages.map((passage, index) => el("details", {},
      el("summary", {}, isNumbered ? `${index + 1} · ${name(passage)}` : name(passage)),
      el("blockquote", {}, headed(passage)),
      el("small", { className: "path" }, passage.source))),
    leftOut.length > 0 && el("p", { className: "remark" }, didNotFit(leftOut)));
}

const MOST_NAMED = 5;

function didNotFit(passages) {
  const named = passages.slice(0, MOST_NAMED).map(place);
  const rest = passages.length - named.length;
  const places = [...named, ...(rest ? [`and ${counted(rest, "other")}`] : [])].join("; ");
  return `${counted(passages.length, "more passage was", "more passages were")} found but did not fit: ${places}`;
}
