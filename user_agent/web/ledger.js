// What left this device: first a row an answer, then every message to a core.

import { download, get, withQuery } from "/web/api.js";
import { button, el } from "/web/dom.js";
import { bytes, counted } from "/web/format.js";
import { learns } from "/web/learns.js";
import { Messages } from "/web/messages.js";
import { reporting } from "/web/notices.js";
import { route } from "/web/router.js";
import { ToldAnswers } from "/web/told.js";

const amount = ({ messages, wire_bytes: size }) => `${counted(messages, "message")} with ${bytes(size)}`;

export class Ledger {
  title = "What left this device";
  #trace = route().query.get("trace");
  #isByMessage = this.#trace !== null || route().query.has("messages");
  #who = el("p", { className: "remark" });
  #summary = el("p", { className: "lead" });
  #verdict = el("p", { className: "verdict", role: "status" });
  #shown = this.#isByMessage ? new Messages(this.#trace) : new ToldAnswers();

  constructor() {
    this.element = el("div", { className: "page" }, this.#summary,
      this.#who,
      this.#filter(),
      this.#shown.element,
      el("p", { className: "remark" }, "The hash chain shows that no entry was changed. It does not show whether entries were cut off at the " +
        "end, unless you keep the hash of the last one elsewhere, or whether the core was honest."),
      el("div", { className: "actions" },
        button("Verify", reporting(() => this.#verify())),
        button("Export as JSON lines", reporting(() => this.#export()))),
      this.#verdict);
  }

  #filter() {
    const all = el("a", { href: "#/ledger?messages" }, "Every message");
    const answers = el("a", { href: "#/ledger" }, "By answer");
    if (!this.#isByMessage) return el("p", { className: "filter" }, all);
    if (this.#trace === null) return el("p", { className: "filter" }, answers);
    return el("p", { className: "filter" }, "Messages of one answer. ", answers, " · ", all);
  }

  async load() {
    const { up, down, local } = await get(withQuery("/v1/ledger/totals", { trace: this.#trace }));
    const left = { messages: up.messages - local.messages, wire_bytes: up.wire_bytes - local.wire_bytes };
    const isAllLocal = local.messages > 0 && !left.messages;
    this.title = isAllLocal ? "What was sent, on this machine" : "What left this device";
    this.#who.textContent = isAllLocal ? learns.ledger_local : learns.ledger_left;
    const sent = [!isAllLocal && `${amount(left)} left this device`, local.messages && `${amount(local)} stayed on this machine`];
    this.#summary.textContent = [...sent.filter(Boolean), `${amount(down)} came back.`].join(", ") +
      " Every message is recorded before it is sent.";
    await this.#shown.load();
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
