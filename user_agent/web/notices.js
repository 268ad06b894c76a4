// What stands in the way: a strip above the page, until it is over.

import { ApiError, GONE, get } from "/web/api.js";
import { button, el } from "/web/dom.js";
import { address, route } from "/web/router.js";

const LOOK_EVERY_MS = 2000;
const labels = new Map(); // of the settings that the page can change, by name
const strip = document.getElementById("notices");
let isWaiting = false;

/** Called when the key turns out to be wrong; set by the start of the page. */
export const onWrongKey = { call: () => {} };

/** Take in which settings there are, and their labels. */
export async function learnSettings() {
  for (const [name, { label }] of Object.entries(await get("/v1/settings"))) labels.set(name, label);
}

/** Show a failure; a wrong key and an agent that is gone are dealt with here. */
export function report(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ApiError)) throw error;
  if (error.status === 401) onWrongKey.call("The agent refused this key. Open the address that the agent printed when it started, or paste its key here.");
  else if (error.code === "insufficient_scope") onWrongKey.call("This key may not open the page. Open the address that the agent printed when it started, or paste the page’s key here.");
  else if (error.code === GONE) waitForAgent(error.message);
  else show(error.message, remedy(error));
}

/** A link to the setting that mends an error; null if there is none, or it is in sight. */
export function remedy({ param }) {
  const name = param?.replace(/^slingshot\./, "");
  const setting = name === "insecure" ? "ca" : name; // an unencrypted line is not allowed from the page
  return labels.has(setting) && route().page !== "settings"
    ? el("a", { href: `${address("settings")}?focus=${setting}` }, `Change it in Settings › ${labels.get(setting)}`) : null;
}

/** A listener whose failures are shown. */
export const reporting = (action) => async (...given) => {
  try {
    return await action(...given);
  } catch (error) {
    return report(error);
  }
};

export function show(message, action = null) {
  const notice = el("div", { className: "notice" }, el("span", {}, message, action && [" ", action]),
    button("✕", () => notice.remove(), { className: "quiet", "aria-label": "Dismiss" }));
  strip.replaceChildren(notice);
}

/** Take notices away, but not that of an agent that is gone: it stays on every page until the agent is back. */
export const clear = () => { if (!isWaiting) strip.replaceChildren(); };

function waitForAgent(message) {
  if (isWaiting) return;
  isWaiting = true;
  strip.replaceChildren(el("div", { className: "notice" }, el("span", {}, `${message} This page waits for it.`)));
  const timer = setInterval(async () => {
    if (!(await get("/health").catch(() => null))) return;
    clearInterval(timer);
    isWaiting = false;
    clear();
    dispatchEvent(new Event("agent-back"));
  }, LOOK_EVERY_MS);
}
