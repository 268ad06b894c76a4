// One answer: while it is made, as it was kept, and why there is none.

import { ApiError, ready } from "/web/api.js";
import { ask } from "/web/asking.js";
import { citationList, disagreement } from "/web/citations.js";
import { Denoising } from "/web/denoising.js";
import { button, el } from "/web/dom.js";
import { bytes, counted, seconds } from "/web/format.js";
import { toldLine, toldOfStopped } from "/web/learns.js";
import { markdown } from "/web/markdown.js";
import { remedy } from "/web/notices.js";
import { lambdasOf, leadersLegend, markedText, tokensOf, withConflicts } from "/web/tokens.js";

const LOOK_EVERY_MS = 1000;
const OWN_CORE_ENDED = "own_core_ended";
const STARTING = "The core on this machine ended; starting it again…";

const waitingFor = ({ code, message }) => (code === OWN_CORE_ENDED ? STARTING : `${message}. Trying again.`);
const pause = () => new Promise((done) => setTimeout(done, LOOK_EVERY_MS));

const readingOf = ({ done, total }) => `Reading ${done.toLocaleString("en")} of ${total.toLocaleString("en")} tokens`;

/** An answer in the making. Afterwards `message` is what is kept of it, or null. */
export class LiveAnswer {
  #denoising = new Denoising();
  #text = el("div", { className: "text waiting" }, el("span", { className: "cursor", "aria-label": "Asking" }));
  #waits = el("p", { className: "remark", role: "status" });
  element = el("article", { className: "answer live" }, this.#text, this.#waits, this.#denoising.element);
  message = null;
  #hasBegun = false;

  constructor(question, options) {
    Object.assign(this, { question, options });
  }

  /** Ask, and tell `onText` of every block. Whoever stops it gets what there is so far. */
  async run(signal, onText) {
    const made = { text: "", trace: null };
    this.#watchStart();
    try {
      for await (const part of ask(this.question, this.options, signal)) this.#take(part, made, signal, onText);
    } catch (error) {
      if (error.name !== "AbortError") throw error;
      made.data = this.#stopped();
    } finally {
      this.#hasBegun = true;
    }
    if (made.text) this.message = this.#kept(made);
    return made.trace;
  }

  /** Say what is waited for before there is a trace that says it. */
  async #watchStart() {
    for (await pause(); !this.#hasBegun; await pause()) {
      const core = await ready();
      if (!this.#hasBegun) this.#waits.textContent = core?.code === OWN_CORE_ENDED ? STARTING : "";
    }
  }

  #take(part, made, signal, onText) {
    if (part.trace) {
      this.#hasBegun = true;
      this.#waits.textContent = "";
      made.trace = part.trace;
      const onEvent = ({ waits, reads }) =>
        (this.#waits.textContent = waits ? waitingFor(waits) : reads ? readingOf(reads) : "");
      this.#denoising.follow(part.trace, { signal, onEvent }).catch(() => {}); // the answer itself says what went wrong
    }
    if (part.slingshot) made.data = { ...part.slingshot, is_cut: part.isCut };
    if (!part.text) return;
    made.text += part.text;
    this.#text.classList.remove("waiting");
    this.#text.textContent = made.text;
    onText(part.text);
  }

  /** What is known of an answer that has no end. */
  #stopped() {
    const { frames, passages, start } = this.#denoising.trace;
    const tokens = frames.filter((frame) => frame.isCommit).flatMap((frame) => frame.finals);
    const { lambda_user = null, left_out = [], left_out_turns = 0, max_tokens = null, clamped_from = null,
      private_context = null } = start ?? {};
    return { tokens, citations: passages, figures: null, lambda_user, left_out, left_out_turns, max_tokens, clamped_from,
      private_context, is_stopped: true };
  }

  #kept({ text, trace, data }) {
    const { seed, isCoreAlone } = this.options;
    return { role: "assistant", text, trace, data: { ...data, seed, is_core_alone: Boolean(isCoreAlone) } };
  }
}

/** An answer as it was kept. */
export function keptAnswer({ text, trace, data }) {
  const { tokens = [], citations = [], conflicts = null } = data ?? {};
  const marked = tokensOf(text, withConflicts(tokens, conflicts));
  const shown = el("div", { className: "text" }, tokens.length ? markedText(marked, citations) : markdown(text));
  return el("article", { className: "answer" }, shown, disagreements(conflicts, citations), leadersLegend(tokens), data?.is_stopped && trace ? toldOfStopped(trace) : toldLine(data?.told), remarks(data),
    citationList(citations, data?.left_out, tokens.some(({ citation }) => typeof citation === "number")), course(trace),
    figures(data, tokens));
}

function disagreements(conflicts, passages) {
  return conflicts?.map((conflict) => el("p", { className: "disagreement", role: "note" }, disagreement(conflict, passages)));
}

const REMARKS = { stuffed_prompt: "Your message looks as if passages of documents were in it. The provider can read the message; the agent adds what it finds in your documents by itself, without sending it." };

function remarks(data) {
  const said = [data?.is_stopped && "Stopped before the end.", data?.clamped_from && clamped(data),
    data?.nothing_found && "Nothing about this was found in your documents; the answer does not use them.",
    data?.left_out_turns &&
      `${counted(data.left_out_turns, "earlier turn")} left out: the oldest do not fit beside this question.`,
    data?.private_context === "in part" && "The private context is too long and was given in part.",
    data?.private_context === "left out" && "The private context was left out.",
    ...(data?.warnings ?? []).map(({ code, message }) => REMARKS[code] ?? message),
    data?.is_cut && !data.clamped_from && "Cut off at the longest answer; see Settings."];
  return said.filter(Boolean).map((text) => el("p", { className: "remark" }, text));
}

const clamped = ({ is_cut: isCut, max_tokens: most, clamped_from: wanted }) =>
  `${isCut ? "Cut off at" : "At most"} ${counted(most, "token")}, not ${wanted.toLocaleString("en")}: ` +
  "this question leaves the models no more room.";

/** How it came about, asked for when somebody looks. */
function course(trace) {
  if (!trace) return null;
  const details = el("details", { className: "course" }, el("summary", {}, "How the answer was made"));
  const open = async () => {
    const denoising = new Denoising();
    details.append(denoising.element);
    await denoising.follow(trace).catch((error) => {
      if (!(error instanceof ApiError)) throw error;
      details.append(el("p", { className: "remark" }, error.message));
    });
  };
  details.addEventListener("toggle", open, { once: true });
  return details;
}

function figures(data, tokens) {
  if (!data?.figures) return null;
  const { timesteps, seconds: duration, bytes_up: up, bytes_down: down } = data.figures;
  const parts = [counted(timesteps, "timestep"), seconds(duration), `↑ ${bytes(up)}`, `↓ ${bytes(down)}`];
  const range = data.lambda_user === "auto" ? lambdasOf(tokens) : "";
  return el("p", { className: "summary" }, [`λ ${data.lambda_user}${range && ` ${range}`}`, ...parts].join("  ·  "));
}

/** Why there is no answer; a busy agent is asked again when it says so. */
export function failedAnswer(error, again) {
  const retry = button("Ask again", again, { className: "primary" });
  if (error.status === 429) countDown(retry, error.retryAfter || 2);
  return el("article", { className: "answer failed", role: "alert" }, el("p", {}, error.message), remedy(error),
    error.code !== "prompt_too_long" && retry);
}

function countDown(retry, left) {
  retry.disabled = left > 0;
  retry.textContent = left > 0 ? `Ask again in ${left} s` : "Ask again";
  if (left > 0) setTimeout(() => countDown(retry, left - 1), 1000);
}
