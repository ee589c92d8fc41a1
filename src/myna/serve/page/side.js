// One side of the Complete view: a model, its settings, and the text that it writes.
import { ApiError, isAbort } from "./api.js";
import { Completion, describe } from "./completion.js";
import { make, showProblem } from "./dom.js";
import { describeTokens } from "./panel.js";
import { retried } from "./retry.js";
import { inShort, readSettings, settingFields } from "./settings.js";

/** One side. `element` goes into the page. */
export class Side {
  constructor(models, { number, onChange }) {
    this.onChange = onChange; // a run has begun or ended
    this.models = models;
    this.stopper = null;
    this.turn = 0; // of the newest run: an older one that ends late says nothing
    this.model = make("select", { "aria-label": `Model ${number}` }, ...models.map(({ id }) => make("option", { value: id, text: id })));
    this.fields = settingFields();
    this.short = make("span.hint");
    this.settings = make("details.settings", {}, make("summary", {}, "Settings ", this.short), this.fields);
    this.output = make("div.output.text", { role: "group", "aria-label": `Text ${number}` });
    this.counts = make("span.counts");
    this.end = make("span.end", { role: "status" });
    this.problem = make("p.problem", { role: "alert", hidden: true });
    this.element = make(
      "article.side",
      { "aria-label": `Side ${number}` },
      make("div.side-controls", {}, make("label.inline", {}, "Model ", this.model), this.settings),
      make("div.side-text", {}, this.output, this.problem, make("p.status", {}, this.counts, this.end)),
    );
    this.fields.addEventListener("input", () => this.#sayShort());
    describeTokens(this.output, describe);
    this.output.append(make("p.empty", { text: "The text will stand here. Point at a token, or move to it with Tab and the arrow keys, to see what else the model thought of." }));
    this.#sayShort();
  }

  /** Whether a text is being written. */
  get running() {
    return this.stopper !== null;
  }

  /** Whether its model can write what stands before a suffix. */
  get canFill() {
    return this.models.some(({ id, can_fill }) => id === this.model.value && can_fill);
  }

  /** Writes a text after a prompt; with a suffix, the middle between both. */
  async run(prompt, suffix = "") {
    this.stop();
    const stopper = new AbortController();
    const turn = (this.turn += 1);
    this.stopper = stopper;
    showProblem(this.problem, null);
    this.end.textContent = "";
    this.onChange();
    try {
      const request = { model: this.model.value, prompt, ...readSettings(this.fields) };
      if (suffix !== "") request.suffix = suffix;
      const work = () => this.#complete(request, stopper.signal);
      await retried(work, stopper.signal, (message) => (this.counts.textContent = message));
      this.end.textContent = this.completion.end();
    } catch (error) {
      if (turn !== this.turn) return;
      if (isAbort(error)) this.end.textContent = "Stopped.";
      else this.#fail(error);
    } finally {
      if (this.stopper === stopper) this.stopper = null;
      this.onChange();
    }
  }

  /** Stops the text; what was written stays. */
  stop() {
    this.stopper?.abort();
    this.stopper = null;
  }

  async #complete(request, signal) {
    this.completion = new Completion(this.output, request.prompt);
    const completion = this.completion;
    const count = () => (this.counts.textContent = completion.counts());
    count();
    await completion.run(request, signal, count);
  }

  #fail(error) {
    if (!this.completion?.tokens.length) this.counts.textContent = "";
    showProblem(this.problem, error.message);
    if (!(error instanceof ApiError)) console.info(error);
  }

  #sayShort() {
    this.short.textContent = inShort(this.fields);
  }
}
