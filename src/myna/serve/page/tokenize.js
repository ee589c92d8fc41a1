// The view Tokenize: a text in the tokens of one or two tokenizers, as you type.
import { ask, isAbort } from "./api.js";
import { byId, chosen, debounced, make, showProblem } from "./dom.js";
import { hex, legibleBytes, nodes } from "./legible.js";
import { merges } from "./merges.js";
import { count, trimmed, whole } from "./numbers.js";
import { addToken, close, describeTokens } from "./panel.js";

const SAMPLE = "Hello  world, it's 12345 👍🏽\n\tunbelievable tokenization";
const MOST_CHARACTERS = 100_000; // asked for at each stroke of a key
const MOST_TOKENS = 2000; // shown; more would be slow to lay out
const COLOURS = 5;
const PAUSE_MS = 150;

/** Sets the view up. It asks for tokens once it is shown. */
export function setUpTokenize(models, shown) {
  if (!models.length) return;
  const [a, b] = [byId("tokenizer-a"), byId("tokenizer-b")];
  const option = ({ id, vocabulary }) => make("option", { value: id, text: `${id} (${whole(vocabulary)} ids)` });
  a.append(...models.map(option));
  b.append(make("option", { value: "", text: "no other" }), ...models.map(option));
  if (models.length > 1) b.value = models[1].id;
  byId("one-model").hidden = models.length > 1;
  byId("text").value = SAMPLE;

  const views = [new TokenView(), new TokenView()];
  const update = () => {
    close();
    const names = [a.value, b.value].filter(Boolean);
    byId("tokenizers").replaceChildren(...views.slice(0, names.length).map((view) => view.element));
    byId("tokenizers").classList.toggle("two", names.length > 1);
    names.forEach((name, n) => view_(views[n], name));
  };
  const view_ = (view, name) => view.show(name, byId("text").value);
  byId("text").addEventListener("input", debounced(PAUSE_MS, update));
  for (const select of [a, b]) select.addEventListener("change", update);
  byId("show-tokens").addEventListener("change", () => views.forEach((view) => view.draw()));
  shown.addEventListener("tokenize", update, { once: true });
  if (!byId("tokenize").hidden) update();
}

/** One tokenizer's view of the text. */
class TokenView {
  constructor() {
    this.title = make("h2");
    this.counts = make("p.counts", { role: "status" });
    this.tokensPlace = make("div.output.text.tokens", { role: "group", "aria-label": "Tokens" });
    this.problem = make("p.problem", { role: "alert", hidden: true });
    this.merges = make("div.merges");
    this.element = make("article.card", {}, this.title, this.counts, this.problem, this.tokensPlace, this.merges);
    this.stopper = new AbortController();
    this.answer = { tokens: [] };
    this.byToken = new WeakMap();
    describeTokens(this.tokensPlace, (span) => this.#describe(this.byToken.get(span)));
    this.tokensPlace.addEventListener("click", (event) => this.#explain(event.target.closest(".token")));
    this.tokensPlace.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.#explain(document.activeElement.closest(".token"));
      }
    });
  }

  /** Asks for the tokens of a text; an earlier answer that is still under way is dropped. */
  async show(model, text) {
    this.stopper.abort();
    this.stopper = new AbortController();
    [this.model, this.text] = [model, text];
    this.title.textContent = model;
    try {
      if (text.length > MOST_CHARACTERS) {
        throw new Error(`The text has ${whole(text.length)} characters. This view takes ${whole(MOST_CHARACTERS)}.`);
      }
      this.answer = await ask("/v1/tokenize", { body: { model, text }, signal: this.stopper.signal });
      showProblem(this.problem, null);
    } catch (error) {
      if (isAbort(error)) return;
      this.answer = { tokens: [] };
      showProblem(this.problem, error.message);
    }
    this.merges.replaceChildren(...(this.answer.tokens.length ? [make("p.hint", { text: "Click a token to see how its word is merged, step by step." })] : []));
    this.draw();
  }

  /** Draws the tokens that were answered. */
  draw() {
    const { tokens } = this.answer;
    const kind = chosen(byId("show-tokens"));
    const bytes = tokens.at(-1)?.end ?? 0;
    const parts = [count(tokens.length, "token"), count(bytes, "byte"), count([...(this.text ?? "")].length, "character")];
    const share = trimmed(bytes / Math.max(1, tokens.length), 2);
    if (tokens.length) parts.push(`${share === "1" ? "1 byte" : `${share} bytes`} a token`);
    this.counts.textContent = parts.join(" · ");
    this.tokensPlace.replaceChildren();
    tokens.slice(0, MOST_TOKENS).forEach((token, n) => {
      const span = make(`span.token.c${n % COLOURS}`);
      if (kind !== "text") span.classList.add("apart");
      span.append(...(kind === "ids" ? [String(token.id)] : kind === "bytes" ? [hex(token.bytes)] : nodes(legibleBytes(token.bytes))));
      this.byToken.set(span, token);
      addToken(this.tokensPlace, span);
      // Where the text breaks its line, the tokens do.
      if (kind === "text" && token.text.includes("\n")) this.tokensPlace.append(make("br"));
    });
    if (tokens.length > MOST_TOKENS) this.tokensPlace.append(make("p.hint", { text: `The first ${whole(MOST_TOKENS)} of ${whole(tokens.length)} tokens.` }));
    if (!tokens.length) this.tokensPlace.append(make("p.empty", { text: "No tokens yet. Type a text above." }));
  }

  #describe(token) {
    const last = token.end - 1;
    const rows = [
      ["id", [String(token.id)]],
      ["text", nodes(legibleBytes(token.bytes))],
      ["bytes", [hex(token.bytes)]],
      ["place", [last > token.start ? `bytes ${whole(token.start)} to ${whole(last)}` : `byte ${whole(token.start)}`]],
    ];
    if (token.of) rows.push(["part of", [token.of]]);
    return [make("table", {}, make("tbody", {}, ...rows.map(([name, value]) => make("tr", {}, make("th", { scope: "row", text: name }), make("td", {}, ...value)))))];
  }

  async #explain(span) {
    if (!span || !this.tokensPlace.contains(span)) return;
    const token = this.byToken.get(span);
    const { model, text } = this;
    try {
      const { words } = await ask("/v1/merges", { body: { model, text, at: token.start }, signal: this.stopper.signal });
      if (!words.length) return;
      this.#mark(words[0]);
      this.merges.replaceChildren(...merges(words[0]));
    } catch (error) {
      if (!isAbort(error)) this.merges.replaceChildren(make("p.problem", { role: "alert", text: error.message }));
    }
  }

  /** Marks the tokens of a word. */
  #mark(word) {
    for (const span of this.tokensPlace.querySelectorAll(".token")) {
      const token = this.byToken.get(span);
      span.classList.toggle("in-word", token.start >= word.start && token.end <= word.end);
    }
  }
}
