// Without a key, or with a wrong one: the field to paste it.

import { el } from "/web/dom.js";
import { keepKey } from "/web/key.js";

/** `why` is said above the field; `onKey` is called when one was given. */
export function entrance(why, onKey) {
  const field = el("input", { type: "password", required: true, autocomplete: "off", "aria-label": "Key", placeholder: "sk-slingshot-…" });
  const enter = (event) => {
    event.preventDefault();
    keepKey(field.value);
    onKey();
  };
  return el("form", { className: "entrance", on: { submit: enter } },
    el("h2", {}, "The agent’s key"),
    el("p", {}, why || "Open the address that the agent printed when it started: the key is in it. Or paste the agent’s key here."),
    el("div", { className: "line" }, field, el("button", { className: "primary" }, "Open")));
}
