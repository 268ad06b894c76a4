// The passages that an answer could read: where they stand, what they say on request, and which ones did not fit.

import { el } from "/web/dom.js";
import { counted, fileName } from "/web/format.js";

/** File name with page or line. */
export function place({ source, page, line }) {
  const where = page ? `page ${page}` : line ? `line ${line}` : "";
  return [fileName(source), where].filter(Boolean).join(", ");
}

export function citationList(passages, leftOut = []) {
  if (!passages.length && !leftOut.length) return null;
  return el("section", { className: "citations", "aria-label": "Passages from your documents" },
    passages.map((passage) => el("details", {},
      el("summary", {}, passage.is_cut ? `${place(passage)}, in part` : place(passage)),
      el("blockquote", {}, passage.text),
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
