// The list of runs: what each is, how far it is, and which are drawn.
import { make, showProblem } from "./dom.js";
import { duration, short, whole } from "./numbers.js";

export const COLOURS = 6;

/** The colour of the n-th run, by its name in the style sheet. */
export const runColour = (n) => `--run-${n % COLOURS}`;

/** The list. A line stays the same element while its run is there: it can be clicked while its numbers change. */
export class RunList {
  /** @param {(name: string, is: boolean) => void} onSelect */
  constructor(place, onSelect) {
    this.place = place;
    this.onSelect = onSelect;
    this.lines = new Map(); // name -> its element and parts
  }

  /**
   * Draws it.
   * @param {object[]} runs as /v1/runs gives them.
   * @param {Map<string, number>} selected name -> number of the colour.
   */
  draw(runs, selected) {
    const there = runs.map(({ name }) => name);
    for (const name of this.lines.keys()) if (!there.includes(name)) this.lines.delete(name);
    runs.forEach((run) => this.#update(run, selected.get(run.name)));
    const items = there.map((name) => this.lines.get(name).item);
    const same = items.length === this.place.children.length && items.every((item, n) => item === this.place.children[n]);
    if (same) return;
    const focused = document.activeElement; // moving an element takes the focus from it
    this.place.replaceChildren(...items);
    if (this.place.contains(focused)) focused.focus();
  }

  #update(run, number) {
    if (!this.lines.has(run.name)) this.lines.set(run.name, this.#line(run.name));
    const { card, box, state, facts: told, track, problem } = this.lines.get(run.name);
    box.checked = number !== undefined;
    card.style.setProperty("--swatch", box.checked ? `var(${runColour(number)})` : "");
    sayState(state, run);
    told.replaceChildren(...facts(run).map((text) => make("span", { text })));
    track.hidden = !run.steps;
    track.firstChild.style.width = run.steps ? `${Math.min(100, (100 * (run.step ?? 0)) / run.steps)}%` : "0";
    showProblem(problem, run.problem);
  }

  #line(name) {
    const box = make("input", { type: "checkbox", value: name, onchange: () => this.onSelect(name, box.checked) });
    const parts = {
      box,
      state: make("span.state"),
      facts: make("span.run-facts"),
      track: make("span.track", { "aria-hidden": "true" }, make("span.bar")),
      problem: make("span.problem", { hidden: true }),
    };
    const title = make("span.run-name", {}, box, make("b", { text: name }), parts.state);
    const card = make("label.run", {}, title, parts.facts, parts.track, parts.problem);
    return { ...parts, card, item: make("li", {}, card) };
  }
}

function sayState(place, run) {
  const done = run.steps && run.step !== null && run.step >= run.steps;
  place.classList.toggle("live", run.writing);
  place.textContent = run.writing ? "training" : done ? "done" : "stopped";
  const ago = duration(Math.max(0, Date.now() / 1000 - run.modified));
  const live = run.writing_known_by === "lock" ? "A process trains there: it holds the run's lock" : "Its last record is fresh";
  place.title = run.writing ? live : `Its last record is ${ago} old`;
}

function facts(run) {
  const parts = [run.step === null ? "no step yet" : `step ${whole(run.step)}${run.steps ? ` of ${whole(run.steps)}` : ""}`];
  if (run.tokens) parts.push(`${short(run.tokens)} tokens`);
  if (run.val_loss !== null) parts.push(`val ${run.val_loss.toFixed(4)}`);
  if (run.hellaswag !== null) parts.push(`HellaSwag ${run.hellaswag.toFixed(4)}`);
  return parts;
}
