// What the models wrote on the way, the newest first.
import { make, withCode } from "./dom.js";
import { whole } from "./numbers.js";

const SHOWN = 6; // before a person asks for more

/** The samples of runs: [{name, colour, samples}] into a place. */
export class Samples {
  constructor(place) {
    this.list = make("ol.samples");
    this.more = make("button", { type: "button", onclick: () => this.#showAll() });
    this.all = false;
    place.replaceChildren(make("h2", { text: "Samples as training goes on" }), this.list, this.more);
  }

  /** Draws them. */
  draw(runs) {
    this.runs = runs;
    const found = runs.flatMap(({ name, colour, samples }) => samples.map((sample) => ({ name, colour, ...sample })));
    found.sort((a, b) => (b.step ?? 0) - (a.step ?? 0));
    const shown = this.all ? found : found.slice(0, SHOWN);
    this.more.hidden = shown.length === found.length;
    this.more.textContent = `Show all ${whole(found.length)}`;
    const empty = make("li.empty", {}, ...withCode("No samples yet. `myna train --sample-every N` writes one every N steps."));
    this.list.replaceChildren(...(shown.length ? shown.map((one) => item(one, runs.length > 1)) : [empty]));
  }

  #showAll() {
    this.all = true;
    this.draw(this.runs);
  }
}

function item({ name, colour, step, prompt, text }, named) {
  const head = make("p.sample-head", {}, make("b", { text: step === null ? "sample" : `step ${whole(step)}` }));
  if (named) {
    const swatch = make("span.swatch");
    swatch.style.setProperty("--swatch", `var(${colour})`);
    head.append(swatch, make("span.hint", { text: name }));
  }
  return make("li", {}, head, make("p.text.sample", { tabindex: "0" }, make("span.prompt", { text: prompt }), text.trimEnd()));
}
