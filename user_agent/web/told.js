// Answers that sent something, the latest first: what was asked, what is known now, and on a click the messages.

import { get, withQuery } from "/web/api.js";
import { button, el } from "/web/dom.js";
import { bytes, counted, when } from "/web/format.js";
import { toldLine } from "/web/learns.js";
import { Messages } from "/web/messages.js";
import { reporting } from "/web/notices.js";

const PAGE = 20;

export class ToldAnswers {
  #list = el("ol", { className: "told-answers" });
  #more = button("Show earlier answers", reporting(() => this.#earlier()), { hidden: true });
  #outside = el("p", { className: "remark", hidden: true });
  #before = Number.MAX_SAFE_INTEGER;
  element = el("div", { className: "reading" }, this.#list, this.#more, this.#outside);

  async load() {
    await this.#earlier();
  }

  async #earlier() {
    const { data, has_more: hasMore, outside } = await get(withQuery("/v1/ledger/answers", { before: this.#before, limit: PAGE }));
    this.#before = data.at(-1)?.last_seq ?? this.#before;
    this.#list.append(...data.map(item));
    this.#more.hidden = !hasMore;
    if (!this.#list.childElementCount) this.#list.append(el("li", {}, "Nothing has been sent for any answer."));
    this.#outside.hidden = !outside.up.messages;
    this.#outside.textContent = `Outside of answers: ${counted(outside.up.messages, "message")} with ` +
      `${bytes(outside.up.wire_bytes)}, as when the core is asked for its model.`;
  }
}

function item(answer) {
  const { question, time, totals } = answer;
  const asked = question === null ? "You asked a question" : ["You asked “", el("q", {}, question), "”"];
  return el("li", {},
    el("p", { className: "asked" }, asked, " ", el("time", { dateTime: time }, when(time))),
    toldLine(answer), frames(answer.trace, totals.up));
}

/** The messages of an answer, asked for when somebody looks. */
function frames(trace, { messages, wire_bytes: size }) {
  const details = el("details", { className: "course" },
    el("summary", {}, `${counted(messages, "message")}, ${bytes(size)} sent`));
  details.addEventListener("toggle", reporting(async () => {
    const shown = new Messages(trace);
    details.append(shown.element);
    await shown.load();
  }), { once: true });
  return details;
}
