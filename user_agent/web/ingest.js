// How far the agent has read the documents: a bar with the time that is left, as long as it reads.

import { get } from "/web/api.js";
import { el } from "/web/dom.js";
import { counted, seconds } from "/web/format.js";
import { report } from "/web/notices.js";

const LOOK_EVERY_MS = 1000;

export class Ingest {
  #bar = el("progress", { max: 1, "aria-label": "Reading documents" });
  #said = el("span", { role: "status" });
  #timer = null;
  element = el("div", { className: "ingest", hidden: true }, this.#bar, this.#said);

  constructor(onDone) {
    this.onDone = onDone;
  }

  /** Look until nothing is read any more; then `onDone`, if anything was. */
  async watch() {
    this.leave();
    try {
      const progress = await get("/v1/documents/progress");
      const wasRunning = !this.element.hidden;
      this.#show(progress);
      if (progress.is_running) this.#timer = setTimeout(() => this.watch(), LOOK_EVERY_MS);
      else if (wasRunning) await this.onDone();
    } catch (error) {
      report(error);
    }
  }

  leave() {
    clearTimeout(this.#timer);
  }

  #show({ is_running: isRunning, total, done, failed, skipped, per_second: perSecond, eta_s: eta, current }) {
    this.element.hidden = !isRunning;
    if (total) Object.assign(this.#bar, { max: total, value: done });
    const parts = [`${done} of ${counted(total, "file")}`, failed && `${failed} failed`, skipped && `${skipped} skipped`,
      perSecond && `${perSecond.toFixed(1)} a second`, eta && `${seconds(eta)} left`, current];
    this.#said.textContent = parts.filter(Boolean).join("  ·  ");
  }
}
