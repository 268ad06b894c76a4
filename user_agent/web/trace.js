// How an answer came about, taken up event by event: frames, one a timestep or a commit, that can be shown in any order.

import { stream } from "/web/api.js";
import { leader } from "/web/tokens.js";

/**
 * frames: [{block, timestep, isCommit, tokens: [{text, isNew, isUnlikeCore, led, lambda}], finals}], in order. `finals`
 * are the committed tokens with their probabilities, of a commit alone; so are `led`, who led, and λ where each has its own.
 */
export class Trace {
  frames = [];
  passages = [];
  start = null;
  waits = null; // for the core, since its last event
  reads = null; // tokens of long prompts, as its last event
  end = null;
  #shown = [];
  #finals = [];

  take(kind, data) {
    const takers = {
      "answer.start": () => Object.assign(this, { start: data, passages: data.passages }),
      "core.wait": () => (this.waits = data),
      "prompt.read": () => (this.reads = data),
      "block.start": () => this.#begin(),
      "denoise.step": () => this.#step(data),
      "token.final": () => this.#finals.push(data),
      "block.commit": () => this.#commit(data),
      "answer.end": () => (this.end = data),
    };
    this.waits = this.reads = null;
    takers[kind]?.();
  }

  /** The last frame of every block before this frame's. */
  before(index) {
    const { block } = this.frames[index];
    return this.frames.filter((frame) => frame.isCommit && frame.block < block);
  }

  #begin() {
    this.#shown = [];
    this.#finals = [];
  }

  #step({ block, timestep, changed, unlike_core: unlike }) {
    for (const [position, , text] of changed) this.#shown[position] = text;
    const isNew = new Set(changed.map(([position]) => position));
    const isUnlike = new Set(unlike);
    const tokens = this.#shown.map((text, position) => ({
      text,
      isNew: isNew.has(position),
      isUnlikeCore: isUnlike.has(position),
    }));
    this.frames.push({ block, timestep, isCommit: false, tokens });
  }

  #commit({ block, timestep }) {
    const isByRule = typeof this.start?.lambda_user === "string";
    const tokens = this.#finals.map((token) => ({
      text: token.text,
      isNew: false,
      isUnlikeCore: token.is_changed,
      led: leader(token, this.#finals),
      lambda: isByRule ? token.lambda_user : null,
    }));
    this.frames.push({ block, timestep, isCommit: true, tokens, finals: this.#finals });
  }
}

/** Reads a trace to its end; `onEvent` is told of it after each event. */
export async function follow(trace, id, onEvent, signal) {
  for await (const { event, data } of stream("GET", `/v1/traces/${encodeURIComponent(id)}/events`, { signal })) {
    trace.take(event, JSON.parse(data));
    onEvent(trace);
  }
}
