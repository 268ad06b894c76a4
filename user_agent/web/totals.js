// The line in the header: how much was sent to a core, for the latest answer and in all.

import { get, withQuery } from "/web/api.js";
import { el } from "/web/dom.js";
import { bytes, counted } from "/web/format.js";

const line = document.getElementById("totals");
let latest = null;

/** Ask anew; with a trace, also what its answer has sent. */
export async function updateTotals(trace = null) {
  const { up, local } = await get("/v1/ledger/totals");
  if (trace) latest = (await get(withQuery("/v1/ledger/totals", { trace }))).up;
  line.replaceChildren(
    el("span", { className: "arrow", "aria-hidden": "true" }, "↑"),
    el("span", {}, el("span", { className: "messages" }, `${counted(up.messages, "message")}, `), `${bytes(up.wire_bytes)} sent`),
    el("span", { className: "of-answer", hidden: !latest },
      latest ? `this answer ${latest.messages}, ${bytes(latest.wire_bytes)}` : ""),
  );
  const stayed = local.messages > 0 && local.messages === up.messages;
  line.title = `${stayed ? "Stayed on this machine" : "Sent to the core"}. Open the ledger`;
}
