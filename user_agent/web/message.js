// A message that left, decoded: its kind, its fields, and its tokens with their ids.

import { el } from "/web/dom.js";

const KINDS = {
  model_card: "Asks the core which model it has",
  open: "Opens an answer: the question, and public parameters of its noise",
  projection: "The projected simplex of one timestep: one token a position",
  close: "Ends the answer",
};

export function messageView({ message, texts, sha256, previous }) {
  const { kind, fields, token_ids: ids } = message;
  return el("div", { className: "decoded" },
    el("h3", {}, kind.replace("_", " "), el("small", {}, KINDS[kind] ?? "")),
    ids.length > 0 && el("ol", { className: "tokens", "aria-label": "Tokens" }, ids.map((id, index) =>
      el("li", {}, el("span", { className: "name" }, texts[index].trim() || "␣"), el("small", {}, String(id))))),
    el("dl", {}, Object.entries(fields).map(([name, value]) => pair(name, JSON.stringify(value)))),
    el("dl", {}, pair("SHA-256", sha256), pair("chain before", previous)));
}

const pair = (name, value) => [el("dt", {}, name), el("dd", { className: "path" }, value)];
