// The view Chat: a conversation with a model that was trained on some. What it and a person say is text, never HTML.
import { ApiError, events, isAbort } from "./api.js";
import { byId, make, showProblem, withCode } from "./dom.js";
import { count, duration, whole } from "./numbers.js";
import { retried } from "./retry.js";
import { inShort, readSettings, settingFields } from "./settings.js";

const MOST_ANSWER = 512; // tokens, where nothing is asked for: the server's rule
const NEAR_END = 48; // pixels: who is so near the end of the turns is taken along

/** Sets the view up for the models that there are. */
export function setUpChat(models) {
  if (!models.length) return;
  const able = models.filter((model) => model.can_chat);
  const unable = models.filter((model) => !model.can_chat).map(({ id }) => `\`${id}\``);
  byId("chat-body").hidden = !able.length;
  byId("cannot-chat").hidden = able.length > 0;
  if (!able.length) {
    byId("cannot-chat").replaceChildren(...withCode(advice(unable)));
    return;
  }
  const chat = new Chat(able);
  if (unable.length) byId("chat-unable").replaceChildren(...withCode(`No conversations with ${unable.join(", ")}: not trained on any.`));
  byId("send").addEventListener("click", () => chat.send());
  byId("chat-stop").addEventListener("click", () => chat.stop());
  byId("chat-reset").addEventListener("click", () => chat.reset());
  byId("message").addEventListener("keydown", (event) => {
    // While an input method composes a word, Enter takes the word.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    chat.send();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !byId("chat").hidden && !byId("key").open) chat.stop();
  });
}

const advice = (names) =>
  `${names.join(", ")} can't chat: no conversations were in the training. Train a model on some, and serve it: ` +
  "`myna prepare CORPUS --conversations --tokenizer MODEL --out DATA`, then `myna train --init MODEL --data DATA`.";

/** The conversation. It lives in this page alone. */
class Chat {
  constructor(models) {
    this.models = models;
    this.turns = []; // as the API takes them; a new array is a new conversation
    this.stopper = null;
    this.fields = settingFields({ max_tokens: "" });
    this.model = byId("chat-model");
    this.model.replaceChildren(...models.map(({ id }) => make("option", { value: id, text: id })));
    byId("chat-settings").append(this.fields);
    for (const place of [this.fields, this.model]) place.addEventListener("input", () => this.#sayShort());
    this.#showEmpty();
    this.#sayShort();
  }

  /** Begins anew. */
  reset() {
    this.stop();
    this.#run(null);
    this.turns = [];
    this.#tell("");
    showProblem(byId("chat-problem"), null);
    this.#showEmpty();
    byId("message").focus();
  }

  /** Stops the answer; what came of it stays. */
  stop() {
    this.stopper?.abort();
  }

  /** Sends what is typed, and shows the answer as it comes. */
  async send() {
    const field = byId("message");
    const question = field.value;
    if (this.stopper || !question.trim()) return;
    const { turns } = this;
    const stopper = new AbortController();
    const isCurrent = () => turns === this.turns;
    this.#run(stopper);
    showProblem(byId("chat-problem"), null);
    field.value = "";
    if (!turns.length) byId("turns").replaceChildren();
    const answer = new Answer(question, this.model.value);
    try {
      const request = this.#request(turns, question);
      this.#tell("Waiting for the first token");
      const work = () => answer.read(request, stopper.signal);
      await retried(work, stopper.signal, (message) => this.#tell(message));
      if (isCurrent()) this.#tell(answer.counts(this.#context()));
    } catch (error) {
      if (isCurrent()) this.#fail(error);
    }
    answer.end();
    if (answer.text.trim()) {
      turns.push({ role: "user", content: question }, { role: "assistant", content: answer.text });
    } else if (isCurrent()) {
      this.#takeBack(answer, question);
    }
    if (this.stopper === stopper) this.#run(null);
  }

  #request(turns, question) {
    const system = byId("system").value;
    return {
      model: this.model.value,
      messages: [
        ...(system.trim() ? [{ role: "system", content: system }] : []),
        ...turns,
        { role: "user", content: question },
      ],
      truncate: true,
      ...readSettings(this.fields),
    };
  }

  /** No turn of a conversation may be empty: a question without an answer is none, and can be asked again. */
  #takeBack(answer, question) {
    answer.remove();
    const field = byId("message");
    if (!field.value) field.value = question;
    if (answer.finish) this.#tell("The model answered nothing. Your message is back in the field.");
    if (!this.turns.length) this.#showEmpty();
  }

  #showEmpty() {
    byId("turns").replaceChildren(make("p.empty", { text: "The conversation will stand here." }));
  }

  #run(stopper) {
    this.stopper = stopper;
    const button = byId("chat-stop");
    // A button that is switched off loses the focus to nowhere.
    if (!stopper && document.activeElement === button) byId("message").focus();
    button.disabled = !stopper;
    byId("send").disabled = Boolean(stopper);
    byId("turns").setAttribute("aria-busy", String(Boolean(stopper))); // read aloud once it is whole
  }

  #fail(error) {
    this.#tell(isAbort(error) ? "Stopped." : "");
    if (isAbort(error)) return;
    showProblem(byId("chat-problem"), error.message);
    if (!(error instanceof ApiError)) console.info(error);
  }

  #tell(text) {
    byId("chat-status").textContent = text;
  }

  #sayShort() {
    const most = Math.min(MOST_ANSWER, Math.max(1, Math.floor(this.#context() / 2)));
    byId("chat-short").textContent = inShort(this.fields, most);
  }

  #context() {
    return this.models.find(({ id }) => id === this.model.value).context_length;
  }
}

/** A question and its answer, as turns in the page. */
class Answer {
  constructor(question, model) {
    this.text = "";
    this.finish = null;
    this.leftOut = 0;
    this.usage = null;
    this.asked = performance.now();
    this.first = null;
    this.said = make("p.said");
    this.notes = make("p.hint");
    this.elements = [
      make("article.turn.user", {}, make("h3", { text: "You" }), make("p.said", { text: question })),
      make("article.turn", {}, make("h3", { text: model }), this.said, this.notes),
    ];
    byId("turns").append(...this.elements);
    byId("turns").scrollTop = byId("turns").scrollHeight;
  }

  /** Reads the stream to its end. */
  async read(request, signal) {
    const body = { ...request, stream: true, stream_options: { include_usage: true } };
    for await (const event of events("/v1/chat/completions", body, signal)) {
      this.leftOut = event.left_out ?? this.leftOut;
      this.usage = event.usage ?? this.usage;
      for (const choice of event.choices) this.#take(choice);
    }
  }

  #take({ delta, finish_reason: finish }) {
    if (this.first === null) {
      this.first = performance.now();
      byId("chat-status").textContent = "Writing";
    }
    this.finish = finish ?? this.finish;
    if (!delta.content) return;
    this.text += delta.content;
    followed(() => this.said.append(delta.content));
  }

  /** It is as it is: its text becomes one, and notes say what a reader should know of it. */
  end() {
    this.said.normalize();
    const notes = [];
    if (this.leftOut) notes.push(`Written without the ${count(this.leftOut, "oldest turn")}: the model's context is full.`);
    if (this.finish === "length") notes.push(`Cut after ${count(this.usage?.completion_tokens ?? 0, "token")}.`);
    followed(() => (this.notes.textContent = notes.join(" ")));
  }

  /** Takes both turns out of the page. */
  remove() {
    for (const element of this.elements) element.remove();
  }

  /** Tokens, speed, time to the first, and how full the model's context is. */
  counts(context) {
    if (!this.usage) return "";
    const { completion_tokens: n, prompt_tokens: prompt } = this.usage;
    const seconds = (performance.now() - this.first) / 1000;
    const speed = n > 1 && seconds >= 0.2 ? [`${((n - 1) / seconds).toFixed(1)} tokens/s`] : [];
    const parts = [count(n, "token"), ...speed, `first after ${duration((this.first - this.asked) / 1000)}`];
    return [...parts, `${whole(prompt + n)} of ${whole(context)} in the context`].join(" · ");
  }
}

/** Changes the turns. Who is at their end stays there; who has scrolled back is left alone. */
function followed(change) {
  const place = byId("turns");
  const follows = place.scrollHeight - place.scrollTop - place.clientHeight < NEAR_END;
  change();
  if (follows) place.scrollTop = place.scrollHeight;
}
