// The field for a question. Enter sends, Shift+Enter makes a new line; while an answer runs, its button stops it.

import { el } from "/web/dom.js";

export class Composer {
  #field = el("textarea", { rows: 1, placeholder: "Ask a question", "aria-label": "Question", "aria-describedby": "learns", maxLength: 100000 });
  #send = el("button", { type: "submit", className: "primary send" }, "Ask");
  element = el("form", { className: "composer" }, this.#field, this.#send);

  constructor(onSay, onStop) {
    Object.assign(this, { onSay, onStop });
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!this.#isRunning) this.#submit();
    });
    this.#field.addEventListener("input", () => this.#fit());
  }

  #isRunning = false;

  set isRunning(value) {
    this.#isRunning = value;
    this.#send.textContent = value ? "Stop" : "Ask";
    this.#send.title = value ? "Escape also stops the answer" : "";
  }

  focus() {
    this.#field.focus();
  }

  clear() {
    this.#field.value = "";
    this.#fit();
  }

  #submit() {
    const text = this.#field.value.trim();
    if (this.#isRunning) this.onStop();
    else if (text) this.onSay(text);
  }

  #fit() {
    this.#field.style.height = "auto";
    this.#field.style.height = `${this.#field.scrollHeight}px`;
  }
}
