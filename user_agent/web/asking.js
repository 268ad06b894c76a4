// One question to the agent, as a stream.

import { ApiError, stream } from "/web/api.js";

/**
 * 63 bits for an answer that can be repeated with other settings, as decimal digits. Drawn here and told to nobody but
 * the agent: from a seed that can be guessed the device's own draws follow.
 */
export const freshSeed = () => String(crypto.getRandomValues(new BigUint64Array(1))[0] >> 1n);

/** `history` is the conversation before. Yields {trace} first, {text} for every block and at the end {slingshot, isCut}. */
export async function* ask(instruction, { seed, isCoreAlone, history = [] }, signal) {
  const body = {
    model: "slingshot",
    stream: true,
    messages: [...history, { role: "user", content: instruction }],
    ...(isCoreAlone && { slingshot: { lambda_user: 0 } }),
  };
  // A seed has more digits than a number of JavaScript.
  const sent = `${JSON.stringify(body).slice(0, -1)},"seed":${seed}}`;
  for await (const { data } of stream("POST", "/v1/chat/completions", { body: sent, signal })) {
    if (data === "[DONE]") return;
    yield* read(JSON.parse(data));
  }
}

function* read(chunk) {
  if (chunk.error) throw new ApiError(503, chunk.error.code, chunk.error.message, 0, chunk.error.param);
  const [{ delta, finish_reason: end }] = chunk.choices;
  if (end) yield { slingshot: chunk.slingshot, isCut: end === "length" };
  else if (chunk.slingshot) yield { trace: chunk.slingshot.trace };
  else if (delta.content) yield { text: delta.content };
}
