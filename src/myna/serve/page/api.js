// The server's API: JSON, streams of events, and its errors as messages for a person.
import { askForKey } from "./key.js";

let key = null; // in memory alone: a reload forgets it

/** What the server could not do, in words to show. */
export class ApiError extends Error {
  constructor(message, status = 0, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter; // seconds, where the server says when to come back
  }
}

/** A request that a person has stopped. */
export const isAbort = (error) => error.name === "AbortError";

/** The answer of a path as JSON; with a body it is a POST. */
export async function ask(path, { body, signal } = {}) {
  const response = await send(path, body, signal);
  if (!response.ok) throw await errorOf(response);
  return response.json();
}

/** The events of a stream, each a JSON value, as they come. */
export async function* events(path, body, signal) {
  const response = await send(path, body, signal);
  if (!response.ok) throw await errorOf(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw isAbort(error) ? error : new ApiError("The connection broke before the text ended. Run it again.");
      });
      if (done) throw new ApiError("The connection ended before the text did. Run it again.");
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        if (!block.startsWith("data: ")) continue; // a comment that keeps the connection alive
        const data = block.slice("data: ".length);
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw new ApiError(sentence(event.error.message), 500);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function send(path, body, signal) {
  for (let tries = 0; ; tries += 1) {
    const headers = {};
    if (body !== undefined) headers["content-type"] = "application/json";
    if (key !== null) headers.authorization = `Bearer ${key}`;
    const options = { method: body === undefined ? "GET" : "POST", headers, signal, cache: "no-store" };
    if (body !== undefined) options.body = JSON.stringify(body);
    const used = key;
    const response = await fetch(path, options).catch((error) => {
      if (isAbort(error)) throw error;
      throw new ApiError("The server does not answer. See whether `myna serve` still runs, then try again.");
    });
    if (response.status !== 401) return response;
    if (key !== used) continue; // another request has asked meanwhile
    const given = await askForKey(used !== null);
    if (given === null) throw new ApiError("This server needs an API key, and none was given.", 401);
    key = given;
  }
}

async function errorOf(response) {
  let message = `The server answered ${response.status} ${response.statusText}`;
  try {
    const body = await response.json();
    if (typeof body.error?.message === "string") message = body.error.message;
  } catch {
    // No JSON: a server between us and ours. Its status says enough.
  }
  const retryAfter = Number.parseFloat(response.headers.get("retry-after"));
  return new ApiError(sentence(message), response.status, Number.isFinite(retryAfter) ? retryAfter : null);
}

/** A message of the server as a sentence. */
export function sentence(message) {
  const begun = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
