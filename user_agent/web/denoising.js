// Denoising, to be watched: the tokens of each block at a timestep, a strip over all timesteps, and a scrubber.

import { withCard } from "/web/card.js";
import { button, el, svg, wantsStillness } from "/web/dom.js";
import { counted, share } from "/web/format.js";
import { LEADERS, passagesWith, tokenCard, wordsAround } from "/web/tokens.js";
import { Trace, follow } from "/web/trace.js";

const FRAME_MS = 450;
const LOWEST_SCALE = 4; // tokens that a full bar stands for at least

export class Denoising {
  #trace = new Trace();
  #follows = true;
  #timer = null;
  #strip = svg("svg", { class: "strip", preserveAspectRatio: "none", "aria-hidden": "true" });
  #range = el("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Timestep" });
  #where = el("output", {});
  #blocks = el("div", { className: "blocks" });
  #play = button("▶", () => this.#toggle(), { className: "quiet play", "aria-label": "Replay" });

  constructor() {
    this.#range.addEventListener("input", () => {
      this.#pause();
      this.#follows = this.#at === this.#last;
      this.#show();
    });
    this.element = el("div", { className: "denoising" },
      el("div", { className: "scrubber" }, this.#play, el("div", { className: "track" }, this.#strip, this.#range)),
      this.#where, this.#blocks, legend());
    this.element.hidden = true;
  }

  get trace() {
    return this.#trace;
  }

  /** Watch an answer, or one that has ended, to its end; `onEvent` is told of the trace after each event. */
  follow(id, { signal, onEvent } = {}) {
    return follow(this.#trace, id, (trace) => {
      this.#grown();
      onEvent?.(trace);
    }, signal);
  }

  get #at() {
    return Number(this.#range.value);
  }

  get #last() {
    return this.#trace.frames.length - 1;
  }

  #grown() {
    if (this.#last < 0 || this.#last === Number(this.#range.max) && !this.element.hidden) return;
    this.element.hidden = false;
    this.#range.max = this.#last;
    this.#draw();
    const frame = this.#trace.frames[this.#last];
    if (this.#follows && (frame.isCommit || !wantsStillness())) this.#go(this.#last);
  }

  #go(index) {
    this.#range.value = index;
    this.#show();
  }

  #toggle() {
    if (this.#timer) return this.#pause();
    if (this.#at === this.#last) this.#go(0);
    this.#timer = setInterval(() => (this.#at < this.#last ? this.#go(this.#at + 1) : this.#pause()), FRAME_MS);
    this.#label("❚❚", "Pause");
  }

  #pause() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.#label("▶", "Replay");
  }

  #label(glyph, name) {
    this.#play.textContent = glyph;
    this.#play.setAttribute("aria-label", name);
  }

  /** Bars: how many positions of each timestep differ from the core's likeliest token. */
  #draw() {
    const { frames } = this.#trace;
    const tallest = Math.max(LOWEST_SCALE, ...frames.map(unlike));
    this.#strip.setAttribute("viewBox", `0 0 ${frames.length} ${tallest}`);
    this.#strip.replaceChildren(...frames.map((frame, x) => {
      const height = unlike(frame) || tallest / 16;
      const kind = frame.isCommit ? "commit" : unlike(frame) ? "unlike" : "alike";
      return svg("rect", { x: x + 0.1, y: tallest - height, width: 0.8, height, class: kind });
    }));
  }

  #show() {
    const frame = this.#trace.frames[this.#at];
    const said = describe(frame);
    this.#range.setAttribute("aria-valuetext", said);
    this.#where.textContent = said;
    [...this.#strip.children].forEach((bar, index) => bar.classList.toggle("here", index === this.#at));
    this.#blocks.replaceChildren(...[...this.#trace.before(this.#at), frame].map((shown) => this.#block(shown)));
  }

  #block(frame) {
    const name = `Block ${frame.block + 1}${frame.isCommit ? ", committed" : ""}`;
    return el("ol", { className: frame.isCommit ? "block commit" : "block", "aria-label": name },
      frame.tokens.map((token, position) => this.#token(frame, token, position)));
  }

  #token(frame, { text, isNew, isUnlikeCore, led, lambda }, position) {
    const leads = LEADERS[led];
    const glyph = leads?.glyph ?? (isUnlikeCore ? "◆" : isNew ? "•" : "");
    const unlike = leads ? `, ${leads.said}` : isUnlikeCore ? ", unlike the core" : "";
    const said = `${isNew ? ", new" : ""}${unlike}`;
    const chip = el("li", { className: `token${isNew ? " new" : ""}${isUnlikeCore ? " unlike" : ""} ${led ?? ""}` },
      el("span", { className: "glyph", "aria-hidden": "true" }, glyph),
      el("span", { className: "name" }, text.trim() || "␣"),
      said && el("span", { className: "unseen" }, said),
      typeof lambda === "number" && el("small", { className: "lambda" }, `λ ${share(lambda)}`));
    chip.style.setProperty("--p", `${100 * (lambda ?? 0)}%`);
    if (!frame.isCommit) return chip;
    chip.tabIndex = 0;
    return withCard(chip, () => tokenCard([frame.finals[position]], this.#passages(frame, position)));
  }

  #passages(frame, position) {
    const texts = frame.tokens.map(({ text }) => text);
    const from = texts.slice(0, position).join("").length;
    const [text, to] = [texts.join(""), from + texts[position].length];
    return passagesWith(wordsAround(text, from + texts[position].search(/\S|$/), to), this.#trace.passages);
  }
}

const unlike = ({ tokens }) => tokens.filter(({ isUnlikeCore }) => isUnlikeCore).length;

function describe(frame) {
  const differ = `${counted(unlike(frame), "token")} unlike the core’s`;
  if (frame.isCommit) return `Block ${frame.block + 1} committed: ${differ}`;
  const changed = frame.tokens.filter(({ isNew }) => isNew).length;
  return `Block ${frame.block + 1}, timestep ${frame.timestep}: ${changed} new, ${differ}`;
}

const legend = () => el("p", { className: "legend", "aria-hidden": "true" },
  el("span", {}, "• new at this timestep"), el("span", {}, "◆ unlike the core’s choice: led by your documents"),
  el("span", {}, "○ committed, led by the core"));
