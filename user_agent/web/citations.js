// The passages that an answer could read: where they stand, and what they say on request.

import { el } from "/web/dom.js";
import { fileName } from "/web/format.js";

/** File name with page or line. */
export function place({ source, page, line }) {
  const where = page ? `page ${page}` : line ? `line ${line}` : "";
  return [fileName(source), where].filter(Boolean).join(", ");
}

export function citationList(passages) {
  if (!passages.length) return null;
  return el("section", { className: "citations", "aria-label": "Passages of your documents" },
    passages.map((passage) => el("details", {},
      el("summary", {}, place(passage)),
      el("blockquote", {}, passage.text),
      el("small", { className: "path" }, passage.source))));
}
