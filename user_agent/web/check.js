// What the check of a link found: whether the models can read it, and where there are others if they cannot.

import { el } from "/web/dom.js";
import { offer } from "/web/pairs.js";

/** The line below a link; null if it was not checked. */
export function checkLine(check) {
  if (!check) return null;
  if (check.state === "waiting") return line("Not checked yet whether the models can read it.");
  if (check.state === "running") return line(`Checking whether the models can read it… ${check.questions} questions answered.`);
  if (check.can_read !== false) return line(`${check.says}.`);
  return el("div", { className: "unreadable check" }, el("p", { role: "status" }, `${check.says}.`), offer());
}

export const isPending = (check) => check !== null && check.state !== "done";

const line = (text) => el("p", { className: "remark check", role: "status" }, text);
