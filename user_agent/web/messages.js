// Messages that were sent, the newest first: those of one answer, or all.

import { get, withQuery } from "/web/api.js";
import { button, el, table } from "/web/dom.js";
import { when } from "/web/format.js";
import { messageView } from "/web/message.js";
import { reporting } from "/web/notices.js";

const PAGE = 100;

export class Messages {
  #columns = ["No.", "Time", "To", "Call", "#Bytes"];
  #rows = el("tbody", {});
  #more = button("Show earlier messages", reporting(() => this.#earlier()), { hidden: true });
  #before = Number.MAX_SAFE_INTEGER;
  #turn = 0;
  /** `trace` is the id of an answer, null for all messages. */
  constructor(trace) {
    this.trace = trace;
    if (trace === null) this.#columns.push("Answer");
    this.element = el("div", { className: "messages-sent" },
      table(this.#columns, this.#rows, { className: "ledger" }), this.#more);
  }

  async load() {
    this.#rows.replaceChildren();
    await this.#earlier();
  }

  /** The page of messages before those that are shown. */
  async #earlier() {
    const turn = ++this.#turn;
    const query = { direction: "up", before: this.#before, limit: PAGE, trace: this.trace };
    const { data, has_more: hasMore } = await get(withQuery("/v1/ledger", query));
    if (turn !== this.#turn) return; // a later look shows the rows; both would show them twice
    this.#before = data.at(-1)?.seq ?? this.#before;
    this.#rows.append(...data.flatMap((entry) => entryRows(entry, this.trace === null)));
    this.#more.hidden = !hasMore;
    if (!this.#rows.childElementCount) this.#rows.append(el("tr", {}, el("td", { colSpan: 6 }, "Nothing has been sent yet.")));
  }
}

/** A row, and under it on request the message. */
function entryRows({ seq, time, destination, rpc, wire_bytes: size, trace }, namesAnswer) {
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
    namesAnswer && el("td", {}, trace && el("a", { href: `#/ledger?trace=${encodeURIComponent(trace)}` }, `…${trace.slice(-6)}`))), below];
}
