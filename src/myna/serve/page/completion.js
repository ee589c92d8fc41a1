// One completion as it comes: its tokens as spans, what the model thought of each, and the counts.
import { events } from "./api.js";
import { make } from "./dom.js";
import { hex, isPart, legible, nodes, tokenBytes } from "./legible.js";
import { count, duration, percent } from "./numbers.js";
import { addToken, close } from "./panel.js";

const SHADES = [0.9, 0.5, 0.2, 0.05]; // likelier than this: shades 0 to 3; else 4
const LEAST_SECONDS = 0.2; // of a text that tells a speed
const thoughts = new WeakMap(); // span -> {written, logprob, likeliest}

/** A text that is being written into a place. */
export class Completion {
  /** @param {Element} place where tokens go; @param {string} prompt shown before them. */
  constructor(place, prompt) {
    this.place = place;
    this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    this.tokens = []; // {span, text}
    this.request = null;
    this.text = ""; // as the server gives it: a stop text is no part of it
    this.finish = null;
    this.asked = performance.now();
    this.first = this.last = null;
    close();
    place.replaceChildren(make("span.prompt", { text: prompt }));
  }

  /** Reads the stream to its end. */
  async run(request, signal, onToken) {
    this.request = request;
    const body = { ...request, stream: true, logprobs: 5 };
    for await (const event of events("/v1/completions", body, signal)) {
      for (const choice of event.choices) this.#take(choice);
      onToken();
    }
    if (request.suffix) this.place.append(make("span.prompt", { text: request.suffix }));
    if (this.finish === "stop" && request.stop) this.#cut();
  }

  #take(choice) {
    this.text += choice.text;
    const { tokens = [], token_logprobs: logprobs = [], top_logprobs: likeliest = [] } = choice.logprobs ?? {};
    tokens.forEach((written, n) => this.#add(written, logprobs[n], likeliest[n]));
    this.finish = choice.finish_reason ?? this.finish;
  }

  #add(written, logprob, likeliest) {
    this.last = performance.now();
    this.first ??= this.last;
    const text = this.decoder.decode(tokenBytes(written), { stream: true });
    const probability = Math.exp(logprob);
    const shade = SHADES.findIndex((least) => probability >= least);
    const span = make(`span.token.s${shade < 0 ? SHADES.length : shade}`, { text });
    if (text.includes("\n")) span.classList.add("newline");
    // A part of a character shows nothing by itself: a mark stands for it, and the last part shows the character.
    if (text === "") span.classList.add("part");
    thoughts.set(span, { written, logprob, likeliest });
    this.tokens.push({ span, text });
    addToken(this.place, span);
  }

  /** Marks what was drawn after the place where a stop text begins. */
  #cut() {
    let left = this.text.length;
    for (const { span, text } of this.tokens) {
      if (text.length > left) {
        span.replaceChildren(text.slice(0, Math.max(0, left)), make("s", { text: text.slice(Math.max(0, left)) }));
        if (left <= 0) span.classList.add("cut");
      }
      left -= text.length;
    }
  }

  /** Tokens, speed, time to the first. */
  counts() {
    const n = this.tokens.length;
    if (!n) return this.finish ? "0 tokens" : "Waiting for the first token";
    const seconds = (this.last - this.first) / 1000;
    const parts = [count(n, "token")];
    if (n > 1 && seconds >= LEAST_SECONDS) parts.push(`${((n - 1) / seconds).toFixed(1)} tokens/s`);
    return [...parts, `first after ${duration((this.first - this.asked) / 1000)}`].join(" · ");
  }

  /** Why it ended. */
  end() {
    if (this.finish === "stop") {
      const written = this.tokens.reduce((length, { text }) => length + text.length, 0);
      return written > this.text.length ? "Ended at a stop text." : "The model ended its text.";
    }
    if (this.tokens.length === this.request.max_tokens) return "Ended: no more tokens were asked for.";
    return "Ended: the model's window is full, or its time is up.";
  }
}

/** What the panel of a token says: the likeliest tokens in its place, the drawn one among them. */
export function describe(span) {
  const { written, logprob, likeliest } = thoughts.get(span);
  const rows = Object.entries(likeliest ?? {}).sort(([, a], [, b]) => b - a);
  if (!rows.some(([token]) => token === written)) rows.push([written, logprob]);
  return [
    make("p", {}, make("b", {}, ...written_(written)), ` had ${percent(Math.exp(logprob))}`),
    make("table", {}, make("tbody", {}, ...rows.map((row) => alternative(row, written)))),
    ...(isPart(written) ? [make("p.hint", { text: "It holds a part of a character." })] : []),
    make("p.hint", { text: "The model's own shares, before temperature and the other settings." }),
  ];
}

function alternative([token, logprob], drawn) {
  const share = Math.exp(logprob);
  const bar = make("span.bar");
  bar.style.width = `${Math.max(1, share * 100)}%`;
  return make(
    token === drawn ? "tr.drawn" : "tr",
    {},
    make("th", { scope: "row" }, ...written_(token)),
    make("td", {}, make("span.track", {}, bar)),
    make("td.number", { text: percent(share) }),
  );
}

/** A token as the API writes it, legible. */
function written_(token) {
  if (isPart(token)) return [`bytes ${hex(tokenBytes(token))}`];
  return token === "" ? ["(nothing)"] : nodes(legible(token));
}
