// The agent's REST endpoint. Every failure is an ApiError that says what to do.

import { readEvents } from "/web/events.js";
import { key } from "/web/key.js";

export class ApiError extends Error {
  /** `param` is the field or the setting that has to change, if it is one. */
  constructor(status, code, message, retryAfter = 0, param = null) {
    super(message);
    Object.assign(this, { status, code, retryAfter, param });
  }
}

export const GONE = "agent_gone";

/** Asks and gives the response; `signal` stops it with an AbortError. */
async function request(method, path, { body, signal } = {}) {
  const isForm = body instanceof FormData;
  const headers = { authorization: `Bearer ${key() ?? ""}`, ...(body && !isForm && { "content-type": "application/json" }) };
  let response;
  try {
    const sent = isForm || typeof body === "string" ? body : body && JSON.stringify(body);
    response = await fetch(path, { method, headers, body: sent, signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : gone();
  }
  if (!response.ok) throw await failure(response);
  return response;
}

const gone = () => new ApiError(0, GONE, "The agent does not respond. Start it again on this device.");

async function failure(response) {
  const { error } = await response.json().catch(() => ({}));
  const message = error?.message ?? `The agent answered ${response.status}.`;
  const retryAfter = Number(response.headers.get("retry-after")) || 0;
  return new ApiError(response.status, error?.code ?? "", message, retryAfter, error?.param ?? null);
}

async function json(method, path, options) {
  const text = await (await request(method, path, options)).text();
  return text ? JSON.parse(text) : null;
}

export const get = (path, options) => json("GET", path, options);
export const post = (path, body, options) => json("POST", path, { ...options, body });
export const patch = (path, body) => json("PATCH", path, { body });
export const remove = (path) => json("DELETE", path);
export const download = async (path) => (await request("GET", path)).blob();

/** Whether an answer could be had: {status, reason, code}; null if nobody says. Nothing is sent to the core for it. */
export const ready = () => fetch("/ready").then((response) => response.json()).catch(() => null);

/** The path with those of the parameters that have a value. */
export function withQuery(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}

/** Events of a stream; a connection that breaks in the middle is the agent gone. */
export async function* stream(method, path, options) {
  const response = await request(method, path, options);
  try {
    yield* readEvents(response);
  } catch (error) {
    throw error.name === "AbortError" ? error : gone();
  }
}
