// A conversation: what was said, and the field for what comes next.

import { ApiError, get, post } from "/web/api.js";
import { freshSeed } from "/web/asking.js";
import { chatTools } from "/web/tools.js";
import { Composer } from "/web/composer.js";
import { el } from "/web/dom.js";
import { learns } from "/web/learns.js";
import { report, reporting } from "/web/notices.js";
import { address, rename } from "/web/router.js";
import { updateTotals } from "/web/totals.js";
import { Turn } from "/web/turn.js";
import { welcome } from "/web/welcome.js";

export class Chat {
  #all = [];
  #running = null;
  #turns = el("div", { className: "turns" });
  #spoken = el("div", { className: "unseen", role: "log", "aria-live": "polite", "aria-label": "Answer" });
  #composer = new Composer(reporting((text) => this.#say(text)), () => this.#running?.abort());
  #alone = el("p", { className: "remark alone", hidden: true },
    "Each question stands alone: the models do not see the earlier ones.");
  #sends = el("input", { type: "checkbox", checked: true });
  #history = el("label", { className: "remark alone", hidden: true }, this.#sends,
    " Send the earlier messages of this chat along");
  #learns = el("p", { className: "remark learns", id: "learns" }, learns.before);
  element = el("div", { className: "chat" }, this.#spoken, this.#turns, this.#alone, this.#history, this.#composer.element, this.#learns);

  /** `status` is the agent's; `onChange` is told when there is another conversation or its order changed. */
  constructor(id, status, onChange) {
    Object.assign(this, { id, status, onChange, title: "New chat" });
  }

  get isRunning() {
    return this.#running !== null;
  }

  stop() {
    this.#running?.abort();
  }

  /** Show what is kept. */
  async load() {
    if (!this.id) return this.#welcome();
    const { title, messages } = await get(`/v1/conversations/${encodeURIComponent(this.id)}`);
    this.title = title;
    let turn = null;
    for (const message of messages) {
      if (message.role === "user") turn = this.#add(message.text, message.id);
      else (this.#all.find(({ id }) => id === message.data.question) ?? turn)?.add(message);
    }
    for (const shown of this.#all) shown.show();
    this.#down();
  }

  /** Who will see what has changed. */
  showLearns() {
    this.#learns.textContent = learns.before;
    if (!this.id && !this.isRunning) this.#welcome();
  }

  showStatus(status) {
    this.status = status;
    this.#showAlone();
    if (!this.id && !this.isRunning) this.#welcome();
  }

  #showAlone() {
    const takes = this.status?.takes_conversations;
    this.#alone.hidden = !this.#all.length || takes !== false;
    this.#history.hidden = !this.#all.length || takes !== true;
  }

  #welcome() {
    this.#turns.replaceChildren(welcome(this.status, reporting((text) => this.#say(text))));
  }

  focus() {
    this.#composer.focus();
  }

  #add(question, id) {
    const turn = new Turn(question, id, {
      onAsk: reporting((options) => this.#work((signal) => this.#answer(turn, options, signal))),
      onEdit: reporting((text) => this.#edit(turn, text)),
      onBranch: reporting(async () => (location.hash = address("chat", (await this.#branch(turn, false)).id))),
    });
    if (!this.#all.length) this.#turns.replaceChildren(chatTools(this));
    this.#all.push(turn);
    this.#showAlone();
    this.#turns.append(turn.element);
    return turn;
  }

  /** Another chat with the beginning of this one, up to a turn or to the one before it. */
  #branch(turn, before) {
    return post(`/v1/conversations/${encodeURIComponent(this.id)}/branch`, { message: turn.id, before });
  }

  /** Ask in the place of a turn: in a chat of its own, so that nothing is lost. */
  async #edit(turn, text) {
    if (this.isRunning) return;
    const isFirst = turn === this.#all[0];
    this.id = isFirst ? null : (await this.#branch(turn, true)).id;
    this.#all = [];
    this.#turns.replaceChildren();
    if (!isFirst) {
      rename("chat", this.id);
      await this.load();
    }
    await this.#say(text);
  }

  #say(text) {
    return this.#work(async (signal) => {
      if (!this.id) await this.#begin(text);
      const { id } = await this.#keep({ role: "user", text });
      this.#composer.clear();
      return this.#answer(this.#add(text, id), {}, signal);
    });
  }

  async #begin(text) {
    const { id, title } = await post("/v1/conversations", { question: text });
    Object.assign(this, { title, id });
    rename("chat", this.id);
    this.onChange(this);
  }

  #keep(message) {
    return post(`/v1/conversations/${encodeURIComponent(this.id)}/messages`, message);
  }

  /** Gives the trace of the answer, or null if there is none. */
  async #answer(turn, { seed = freshSeed(), isCoreAlone = false }, signal) {
    const answer = turn.live({ seed, isCoreAlone, history: this.#before(turn) });
    try {
      const trace = await answer.run(signal, (text) => this.#speak(text));
      if (answer.message) {
        answer.message.data.question = turn.id; // behind which another question may stand by now
        turn.add(await this.#keep(answer.message));
      }
      turn.show(); // and nothing is awaited before another question is taken, so that no click on it is lost
      return trace;
    } catch (error) {
      this.#failed(turn, error, { seed, isCoreAlone });
      return null;
    }
  }

  #before(turn) {
    const earlier = this.#all.slice(0, this.#all.indexOf(turn));
    const isAlone = this.status?.takes_conversations === false || !this.#sends.checked;
    return isAlone ? [] : earlier.flatMap(({ messages }) => messages);
  }

  #failed(turn, error, options) {
    if (!(error instanceof ApiError)) throw error;
    turn.failed(error, options);
    if (!error.status || error.status === 401) report(error);
  }

  /** One question at a time, from its first click on. */
  async #work(task) {
    if (this.isRunning) return;
    this.#running = new AbortController();
    this.#showRunning();
    let trace = null;
    try {
      trace = await task(this.#running.signal);
    } finally {
      this.#running = null;
      this.#showRunning();
      this.onChange(this);
    }
    await updateTotals(trace);
  }

  #showRunning() {
    this.#composer.isRunning = this.isRunning;
    this.#down();
  }

  #speak(text) {
    if (this.#spoken.childElementCount > 50) this.#spoken.replaceChildren();
    this.#spoken.append(el("span", {}, text));
    this.#down();
  }

  #down() {
    requestAnimationFrame(() => this.#turns.lastElementChild?.scrollIntoView({ block: "end" }));
  }
}
