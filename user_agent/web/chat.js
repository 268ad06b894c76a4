// A conversation: what was said, and the field for what comes next.

import { ApiError, get, post } from "/web/api.js";
import { freshSeed } from "/web/asking.js";
import { Composer } from "/web/composer.js";
import { el } from "/web/dom.js";
import { learns } from "/web/learns.js";
import { report, reporting } from "/web/notices.js";
import { rename } from "/web/router.js";
import { updateTotals } from "/web/totals.js";
import { Turn } from "/web/turn.js";
import { welcome } from "/web/welcome.js";

const TITLE_LENGTH = 60;

export class Chat {
  #all = [];
  #running = null;
  #turns = el("div", { className: "turns" });
  #spoken = el("div", { className: "unseen", role: "log", "aria-live": "polite", "aria-label": "Answer" });
  #composer = new Composer(reporting((text) => this.#say(text)), () => this.#running?.abort());
  #alone = el("p", { className: "remark alone", hidden: true },
    "Each question stands alone: the models do not see the earlier ones.");
  #learns = el("p", { className: "remark learns", id: "learns" }, learns.before);
  element = el("div", { className: "chat" }, this.#spoken, this.#turns, this.#alone, this.#composer.element, this.#learns);

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
      if (message.role === "user") turn = this.#add(message.text);
      else turn?.add(message);
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
    this.#alone.hidden = !this.#all.length || this.status?.takes_conversations !== false;
  }

  #welcome() {
    this.#turns.replaceChildren(welcome(this.status, reporting((text) => this.#say(text))));
  }

  focus() {
    this.#composer.focus();
  }

  #add(question) {
    const turn = new Turn(question, reporting((options) => this.#work((signal) => this.#answer(turn, options, signal))));
    if (!this.#all.length) this.#turns.replaceChildren();
    this.#all.push(turn);
    this.#showAlone();
    this.#turns.append(turn.element);
    return turn;
  }

  #say(text) {
    return this.#work(async (signal) => {
      if (!this.id) await this.#begin(text);
      await this.#keep({ role: "user", text });
      this.#composer.clear();
      return this.#answer(this.#add(text), {}, signal);
    });
  }

  async #begin(text) {
    const title = text.length > TITLE_LENGTH ? `${text.slice(0, TITLE_LENGTH - 1)}…` : text;
    Object.assign(this, { title, id: (await post("/v1/conversations", { title })).id });
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
      if (answer.message) turn.add(await this.#keep(answer.message));
      turn.show(); // and nothing is awaited before another question is taken, so that no click on it is lost
      return trace;
    } catch (error) {
      this.#failed(turn, error, { seed, isCoreAlone });
      return null;
    }
  }

  #before(turn) {
    const earlier = this.#all.slice(0, this.#all.indexOf(turn));
    return this.status?.takes_conversations === false ? [] : earlier.flatMap(({ messages }) => messages);
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
