// Look for a passage, as the agent does for a question.

import { post } from "/web/api.js";
import { headed, place } from "/web/citations.js";
import { el } from "/web/dom.js";
import { counted } from "/web/format.js";
import { reporting } from "/web/notices.js";

const MOST = 10;

export function searchForm() {
  const field = el("input", { type: "search", name: "query", required: true, placeholder: "A question, to see the passages that the private model would read" });
  const found = el("ul", { className: "found", "aria-live": "polite" });
  const search = async (event) => {
    event.preventDefault();
    const { data, left_out: leftOut, why_none: whyNone, more } =
      await post("/v1/documents/search", { query: field.value, limit: MOST });
    const passages = [...(whyNone ? [el("li", { className: "remark" }, whyNone)] : []),
      ...data.map((one) => passage(one, one.is_cut ? ", in part" : "")),
      ...leftOut.map((one) => passage(one, whyNone ? ", not used" : ", does not fit with this question")),
      ...(more ? [el("li", { className: "remark" }, `${counted(more, "more passage was", "more passages were")} found.`)] : [])];
    found.replaceChildren(...(data.length + leftOut.length ? passages : [el("li", { className: "remark" }, "Nothing matches.")]));
  };
  return el("div", {}, el("form", { className: "line", role: "search", on: { submit: reporting(search) } },
    el("label", {}, "Search the passages", field), el("button", {}, "Search")), found);
}

const passage = (found, share) =>
  el("li", {}, el("span", {}, headed(found)), el("small", { title: found.source }, place(found) + share));
