// The departure ledger: every message to a core, the newest first, and what each says.

import { download, get, withQuery } from "/web/api.js";
import { button, el, table } from "/web/dom.js";
import { bytes, counted, when } from "/web/format.js";
import { messageView } from "/web/message.js";
import { reporting } from "/web/notices.js";
import { route } from "/web/router.js";

const PAGE = 100;

const WHAT = "the questions, and the tokens of the answers with what they took from your documents.";
const WHO = `The provider can read all that left: ${WHAT}`;
const WHO_IS_LOCAL = `These messages went to a core on this machine. A provider elsewhere could read all of them: ${WHAT}`;

const amount = ({ messages, wire_bytes: size }) => `${counted(messages, "message")} with ${bytes(size)}`;

export class Ledger {
  title = "What left this device";
  #trace = route().query.get("trace");
  #who = el("p", { className: "remark" });
  #summary = el("p", { className: "lead" });
  #verdict = el("p", { className: "verdict", role: "status" });
  #rows = el("tbody", {});
  #more = button("Show earlier messages", reporting(() => this.#earlier()), { hidden: true });
  #before = Number.MAX_SAFE_INTEGER;
  #turn = 0;

  constructor() {
    this.element = el("div", { className: "page" }, this.#summary,
      this.#who,
      el("p", { className: "remark" }, "The hash chain shows that no entry was changed. It does not show whether entries were cut off at the " +
        "end, unless you keep the hash of the last one elsewhere, or whether the core was honest."),
      this.#trace && el("p", { className: "filter" }, "Messages of one answer. ", el("a", { href: "#/ledger" }, "Show all")),
      el("div", { className: "actions" },
        button("Verify", reporting(() => this.#verify())),
        button("Export as JSON lines", reporting(() => this.#export()))),
      this.#verdict,
      table(["No.", "Time", "To", "Call", "#Bytes", "Answer"], this.#rows, { className: "ledger" }), this.#more);
  }

  async load() {
    const { up, down, local } = await get(withQuery("/v1/ledger/totals", { trace: this.#trace }));
    const left = { messages: up.messages - local.messages, wire_bytes: up.wire_bytes - local.wire_bytes };
    const isAllLocal = local.messages > 0 && !left.messages;
    this.title = isAllLocal ? "What was sent, on this machine" : "What left this device";
    this.#who.textContent = isAllLocal ? WHO_IS_LOCAL : WHO;
    const sent = [!isAllLocal && `${amount(left)} left this device`, local.messages && `${amount(local)} stayed on this machine`];
    this.#summary.textContent = [...sent.filter(Boolean), `${amount(down)} came back.`].join(", ") +
      " Every message is recorded before it is sent.";
    this.#rows.replaceChildren();
    await this.#earlier();
  }

  /** The page of messages before those that are shown. */
  async #earlier() {
    const turn = ++this.#turn;
    const query = { direction: "up", before: this.#before, limit: PAGE, trace: this.#trace };
    const { data, has_more: hasMore } = await get(withQuery("/v1/ledger", query));
    if (turn !== this.#turn) return; // a later look shows the rows; both would show them twice
    this.#before = data.at(-1)?.seq ?? this.#before;
    this.#rows.append(...data.flatMap((entry) => entryRows(entry)));
    this.#more.hidden = !hasMore;
    if (!this.#rows.childElementCount) this.#rows.append(el("tr", {}, el("td", { colSpan: 6 }, "Nothing has been sent yet.")));
  }

  async #verify() {
    const { broken_seq: broken, entries, chain, reason } = await get("/v1/ledger/verify");
    this.#verdict.className = `verdict ${broken ? "broken" : "holds"}`;
    this.#verdict.textContent = broken
      ? `✕ Entry ${broken} breaks the hash chain: ${reason}`
      : `✓ The hash chain of ${counted(entries, "entry", "entries")} is consistent. It ends with ${chain.slice(0, 16)}…`;
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
