// The departure ledger: every message that left this device, the newest first, and what each says.

import { download, get, withQuery } from "/web/api.js";
import { button, el, table } from "/web/dom.js";
import { bytes, counted, when } from "/web/format.js";
import { messageView } from "/web/message.js";
import { reporting } from "/web/notices.js";
import { route } from "/web/router.js";

const PAGE = 100;

export class Ledger {
  title = "What left this device";
  #trace = route().query.get("trace");
  #summary = el("p", { className: "lead" });
  #verdict = el("p", { className: "verdict", role: "status" });
  #rows = el("tbody", {});
  #more = button("Show earlier ones", reporting(() => this.#earlier()), { hidden: true });
  #before = Number.MAX_SAFE_INTEGER;

  constructor() {
    this.element = el("div", { className: "page" }, this.#summary,
      el("p", { className: "remark" }, "The provider can read all of it: the questions, and the tokens of the answers with what they " +
        "took from your documents. The chain shows that no entry was changed, not that the core was honest."),
      this.#trace && el("p", { className: "filter" }, "Messages of one answer. ", el("a", { href: "#/ledger" }, "Show all")),
      el("div", { className: "actions" },
        button("Verify", reporting(() => this.#verify())),
        button("Export as JSON lines", reporting(() => this.#export()))),
      this.#verdict,
      table(["No.", "Time", "To", "Call", "#Bytes", "Answer"], this.#rows, { className: "ledger" }), this.#more);
  }

  async load() {
    const { up, down } = await get(withQuery("/v1/ledger/totals", { trace: this.#trace }));
    this.#summary.textContent = `${counted(up.messages, "message")} with ${bytes(up.wire_bytes)} left this device, ` +
      `${counted(down.messages, "message")} with ${bytes(down.wire_bytes)} came. Every message is recorded before it leaves.`;
    this.#rows.replaceChildren();
    await this.#earlier();
  }

  /** The page of messages before those that are shown. */
  async #earlier() {
    const query = { direction: "up", before: this.#before, limit: PAGE, trace: this.#trace };
    const { data, has_more: hasMore } = await get(withQuery("/v1/ledger", query));
    this.#before = data.at(-1)?.seq ?? this.#before;
    this.#rows.append(...data.flatMap((entry) => entryRows(entry)));
    this.#more.hidden = !hasMore;
    if (!this.#rows.childElementCount) this.#rows.append(el("tr", {}, el("td", { colSpan: 6 }, "Nothing has left yet.")));
  }

  async #verify() {
    const { broken_seq: broken, entries, chain, reason } = await get("/v1/ledger/verify");
    this.#verdict.className = `verdict ${broken ? "broken" : "holds"}`;
    this.#verdict.textContent = broken
      ? `✕ Entry ${broken} does not fit: ${reason}`
      : `✓ The chain of ${counted(entries, "entry", "entries")} holds. It ends with ${chain.slice(0, 16)}…`;
  }

  async #export() {
    const url = URL.createObjectURL(await download("/v1/ledger/export"));
    el("a", { href: url, download: "slingshot-ledger.jsonl" }).click();
    URL.revokeObjectURL(url);
  }
}

/** A row, and under it on request the message. */
function entryRows({ seq, time, destination, rpc, wire_bytes: size, trace }) {
  const said = el("td", { colSpan: 6 });
  const below = el("tr", { className: "message", hidden: true }, said);
  const toggle = button(String(seq), reporting(async () => {
    if (!said.childElementCount) said.append(messageView(await get(`/v1/ledger/${seq}`)));
    below.hidden = !below.hidden;
    toggle.setAttribute("aria-expanded", String(!below.hidden));
  }), { className: "quiet", "aria-expanded": "false", "aria-label": `Message ${seq}: read it` });
  const onRow = (event) => event.target.closest("a, button") || toggle.click();
  return [el("tr", { className: "entry", on: { click: onRow } },
    el("th", { scope: "row" }, toggle), el("td", {}, when(time)), el("td", {}, destination), el("td", {}, rpc),
    el("td", { className: "number" }, size.toLocaleString("en")),
    el("td", {}, trace && el("a", { href: `#/ledger?trace=${encodeURIComponent(trace)}` }, `…${trace.slice(-6)}`))), below];
}
