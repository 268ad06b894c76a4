// The empty chat: what this is, and with the demo's models where to begin.

import { button, el } from "/web/dom.js";
import { sentence } from "/web/format.js";
import { learns } from "/web/learns.js";
import { offer } from "/web/pairs.js";

const SUGGESTED = [
  "Who is my plumber?",
  "When does Fern Tower open?",
  "In which street is the place of my piano lesson?",
];

/** `status` is the agent's; null while it is not known yet, as when a core that is gone is waited for. */
export function welcome(status, onAsk) {
  const isDemo = status?.core?.is_demo;
  return el("div", { className: "welcome" },
    el("h2", {}, "Ask about your documents"),
    el("p", {}, "A large model on a server and a small one on this device answer together. Only the small one reads your documents."),
    el("p", {}, learns.welcome),
    isDemo && offer(),
    isDemo && demo(onAsk),
    status?.core?.error && el("p", { className: "notice" }, sentence(status.core.error)));
}

function demo(onAsk) {
  return el("section", { className: "demo", "aria-label": "First start" },
    el("ul", { className: "suggestions" }, SUGGESTED.map((text) => el("li", {}, button(text, () => onAsk(text))))),
    el("p", { className: "remark" }, "You are looking at a demo: two small models that know one invented town. It comes with " +
      "sample notes of somebody who lives there; folders that you link are read in addition."),
    el("p", { className: "actions" },
      el("a", { className: "button", href: "#/documents?focus=path" }, "Use my own folder"),
      el("a", { className: "button", href: "#/settings?focus=core" }, "Use my own core")));
}
