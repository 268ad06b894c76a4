// A question and its answers: the one that is shown, those before it, and beside it the core's alone.

import { LiveAnswer, failedAnswer, keptAnswer } from "/web/answer.js";
import { button, el } from "/web/dom.js";
import { address } from "/web/router.js";

export class Turn {
  #answers = [];
  #alone = null;
  #shown = -1;
  #body = el("div", { className: "body" });
  #asked = el("div", { className: "asking" });

  /**
   * `id` is the question's. `onAsk({seed, isCoreAlone})` asks it again, `onEdit(text)` asks another one in its place,
   * `onBranch()` goes on from here in a chat of its own.
   */
  constructor(question, id, { onAsk, onEdit, onBranch }) {
    Object.assign(this, { question, id, onAsk, onEdit, onBranch });
    this.#asked.append(el("p", { className: "question" }, question),
      button("Edit", () => this.#edit(), { className: "quiet edit", "aria-label": `Edit: ${question}` }));
    this.element = el("section", { className: "turn" }, this.#asked, this.#body);
  }

  /** Show the question in a field; what is asked in its place goes to a branch, and this chat stays as it is. */
  #edit() {
    const shown = [...this.#asked.childNodes];
    const field = el("textarea", { value: this.question, "aria-label": "New wording", rows: 3, required: true, maxLength: 100000 });
    const back = () => (this.#asked.replaceChildren(...shown), shown.at(-1).focus());
    const submit = (event) => {
      event.preventDefault();
      const text = field.value.trim();
      back();
      if (text) this.onEdit(text);
    };
    this.#asked.replaceChildren(el("form", { className: "editing", on: { submit } }, field, el("div", { className: "actions" },
      button("Cancel", back, { className: "quiet" }), el("button", { type: "submit", className: "primary" }, "Ask"))));
    field.focus();
  }

  /** Take in an answer that is kept. */
  add(message) {
    if (message.data?.is_core_alone) this.#alone = message;
    else this.#shown = this.#answers.push(message) - 1;
  }

  /** What was said in this turn, for those behind it: the answer that is shown. */
  get messages() {
    const answer = this.#answers[this.#shown]?.text;
    return [{ role: "user", content: this.question }, ...(answer ? [{ role: "assistant", content: answer }] : [])];
  }

  /** Show an answer in the making, where it will stand. */
  live(options) {
    const answer = new LiveAnswer(this.question, options);
    this.#body.replaceChildren(...(options.isCoreAlone ? this.#columns(this.#current(), answer.element) : [answer.element]));
    return answer;
  }

  failed(error, options) {
    const failure = failedAnswer(error, () => this.onAsk(options));
    if (this.#shown < 0) return this.#body.replaceChildren(failure);
    this.show();
    this.#body.append(failure);
  }

  /** Show what is kept. */
  show() {
    if (this.#shown < 0) return this.#body.replaceChildren(this.#unanswered());
    const alone = this.#alone?.data.seed === this.#answers[this.#shown].data?.seed ? this.#alone : null;
    const shown = alone ? this.#columns(this.#current(), keptAnswer(alone)) : [this.#current()];
    this.#body.replaceChildren(...shown, this.#actions(Boolean(alone)));
  }

  #current() {
    return keptAnswer(this.#answers[this.#shown]);
  }

  #columns(together, alone) {
    const column = (name, answer) => el("div", {}, el("h3", {}, name), answer);
    return [el("div", { className: "beside" }, column("With your documents", together), column("Core alone", alone))];
  }

  #unanswered() {
    return el("p", { className: "remark" }, "There is no answer yet. ", button("Ask again", () => this.onAsk({})));
  }

  #actions(hasAlone) {
    const { trace, text, data } = this.#answers[this.#shown];
    return el("div", { className: "actions", role: "group", "aria-label": "For this answer" },
      this.#pager(),
      button("Regenerate", () => this.onAsk({}), { className: "quiet" }),
      data?.seed && data.lambda_user !== 1 && !hasAlone &&  // at λ 1 there may be no core
        button("Compare with core alone", () => this.onAsk({ seed: data.seed, isCoreAlone: true }), { className: "quiet" }),
      button("Branch", () => this.onBranch(), { className: "quiet", title: "Go on from here in another chat" }),
      button("Copy", () => navigator.clipboard.writeText(text), { className: "quiet" }),
      trace && el("a", { className: "quiet", href: `${address("ledger")}?trace=${encodeURIComponent(trace)}` }, "Messages sent"));
  }

  #pager() {
    if (this.#answers.length < 2) return null;
    const step = (by, label, glyph) => button(glyph, () => {
      this.#shown += by;
      this.show();
    }, { className: "quiet", "aria-label": label, disabled: !this.#answers[this.#shown + by] });
    return el("span", { className: "pager" }, step(-1, "Previous answer", "‹"),
      `${this.#shown + 1} of ${this.#answers.length}`, step(1, "Next answer", "›"));
  }
}
