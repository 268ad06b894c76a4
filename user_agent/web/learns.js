// Who learns what, as the agent says it: every sentence about it on the page comes from there.

import { get } from "/web/api.js";
import { el } from "/web/dom.js";

/** {mode, before, welcome, documents, ledger_left, ledger_local}, of the settings in force. */
export let learns = { mode: "", before: "", welcome: "", documents: "", ledger_left: "", ledger_local: "" };

/** Ask anew; nothing is sent to the core for it. */
export async function learnWhoLearns() {
  learns = await get("/v1/disclosure");
  dispatchEvent(new Event("learns"));
}

const TRIES = 10;
const PAUSE_MS = 300;

/** The line of an answer that was stopped, filled once the agent has stopped too. */
export function toldOfStopped(trace) {
  const place = el("div", {});
  const look = async () => {
    for (let tries = 0; tries < TRIES; tries += 1) {
      const told = await get(`/v1/ledger/answers/${encodeURIComponent(trace)}`).catch(() => null); // nothing was sent
      if (!told || told.state !== "begun") return place.replaceChildren(...[toldLine(told)].filter(Boolean));
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
  };
  look();
  return place;
}

/** What whoever runs the core now knows; the words of documents stand out. Null if nothing was sent. */
export function toldLine(told) {
  if (!told) return null;
  const words = told.words.flatMap(({ text, place }, index) =>
    [index ? ", " : " ", el("strong", {}, text), ` (${place})`]);
  return el("p", { className: "told" }, told.lead, words, told.words.length > 0 && ".");
}
