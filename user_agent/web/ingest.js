// How far the agent has read the documents: a bar with the time that is left, as long as it reads.

import { get } from "/web/api.js";
import { el } from "/web/dom.js";
import { counted, seconds } from "/web/format.js";
import { report } from "/web/notices.js";

const LOOK_EVERY_MS = 1000;

export class Ingest {
  #bar = el("progress", { max: 1, "aria-label": "Reading documents" });
  #said = el("span", { role: "status" });
  #running = el("div", { className: "ingest", hidden: true }, this.#bar, this.#said);
  #problems = el("ul", { className: "problems" });
  #timer = null;
  #seen = null;
  element = el("div", { className: "reading" }, this.#running, this.#problems);

  /** `onChange` is told when the agent has read something. */
  constructor(onChange) {
    this.onChange = onChange;
  }

  /** Look again and again: files change, and are then read, without anybody asking for it. */
  async watch() {
    try {
      const progress = await get("/v1/documents/progress");
      this.#show(progress);
      if (!progress.is_running) await this.#compare(progress);
      this.#timer = setTimeout(() => this.watch(), LOOK_EVERY_MS);
    } catch (error) {
      report(error);
    }
  }

  leave() {
    clearTimeout(this.#timer);
  }

  async #compare({ total, indexed, failed, skipped }) {
    const now = [total, indexed, failed, skipped].join(" ");
    const isNews = this.#seen !== null && this.#seen !== now;
    this.#seen = now;
    if (isNews) await this.onChange();
  }

  #show({ is_running: isRunning, total, done, failed, skipped, per_second: perSecond, eta_s: eta, current, problems }) {
    this.#running.hidden = !isRunning;
    if (total) Object.assign(this.#bar, { max: total, value: done });
    else this.#bar.removeAttribute("value");
    const parts = [`${done} of ${counted(total, "file")}`, failed && `${failed} failed`, skipped && `${skipped} skipped`,
      perSecond && `${perSecond.toFixed(1)} a second`, eta && `${seconds(eta)} left`, current];
    this.#said.textContent = parts.filter(Boolean).join("  ·  ");
    this.#problems.replaceChildren(...problems.map((problem) => el("li", {}, problem)));
  }
}
