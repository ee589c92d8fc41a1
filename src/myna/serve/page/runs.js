// The view Runs: the runs of a folder, their curves over each other, and their samples; live while it is shown.
import { ask } from "./api.js";
import { Chart } from "./chart.js";
import { byId, chosen, make, showProblem } from "./dom.js";
import { duration, short, whole } from "./numbers.js";
import { RunData, evened, smoothed } from "./run_data.js";
import { COLOURS, RunList, runColour } from "./run_list.js";
import { Samples } from "./samples.js";

const POLL_MS = 4000;
const MOST_SELECTED = COLOURS;
const SMOOTHED = "train, smoothed";
const NO_SCORES = "No scores yet. `myna train --hellaswag hellaswag_val.jsonl` scores the model as it trains.";
const OTHER_TOKENS = "The runs' tokenizers differ, so their losses per token do not compare. Bits per byte do: see below.";

/** Sets the view up. It asks for runs while it is shown. */
export function setUpRuns(shown) {
  const view = new RunsView();
  const wake = () => view.poll();
  shown.addEventListener("runs", wake);
  shown.addEventListener("theme", () => view.draw());
  document.addEventListener("visibilitychange", wake);
  for (const id of ["x-axis", "y-axis"]) byId(id).addEventListener("change", () => view.draw());
}

class RunsView {
  constructor() {
    this.lines = [];
    this.data = new Map(); // name -> RunData, of the selected
    this.selected = null; // name -> number of its colour; null before the first answer
    this.loss = new Chart(byId("loss"), { title: "Loss, nats per token", format: (value) => value.toFixed(4) });
    this.hellaswag = new Chart(byId("hellaswag"), { title: "HellaSwag accuracy, mean per token", format: (value) => value.toFixed(4), leastSpan: 0.04 });
    this.list = new RunList(byId("run-list"), (name, is) => this.#select(name, is));
    this.samples = new Samples(byId("samples"));
    this.timer = null;
    this.polling = this.again = false;
  }

  /** Asks for what is new, draws it, and does so again after a while, as long as the view is seen. */
  async poll() {
    clearTimeout(this.timer);
    if (byId("runs").hidden || document.visibilityState !== "visible") return;
    this.again = this.polling; // what was chosen meanwhile is not in the answers under way
    if (this.polling) return;
    this.polling = true;
    let wait = POLL_MS;
    try {
      await this.#ask();
      showProblem(byId("runs-problem"), null);
    } catch (error) {
      byId("runs-body").hidden = false;
      const again = error.status === 401 ? "Reload the page to give one." : "The page goes on asking.";
      showProblem(byId("runs-problem"), `${error.message} ${again}`);
      wait = error.status === 401 ? null : 2 * POLL_MS;
    } finally {
      this.polling = false;
    }
    if (this.again) wait = 0;
    if (wait !== null) this.timer = setTimeout(() => this.poll(), wait);
  }

  async #ask() {
    const { data: lines, folder } = await ask("/v1/runs");
    this.lines = lines;
    const empty = emptyState(folder, lines);
    byId("no-runs").hidden = !empty;
    byId("runs-body").hidden = Boolean(empty);
    if (empty) return void byId("no-runs").replaceChildren(...empty);
    byId("runs-folder").textContent = `in ${folder}`;
    const there = new Set(lines.map(({ name }) => name));
    this.selected ??= new Map([[lines[0].name, 0]]);
    for (const name of this.selected.keys()) if (!there.has(name)) this.#drop(name);
    this.list.draw(this.lines, this.selected);
    await Promise.all([...this.selected.keys()].map((name) => this.#read(name)));
    this.draw();
  }

  async #read(name) {
    if (!this.data.has(name)) this.data.set(name, new RunData(name));
    try {
      await this.data.get(name).poll();
    } catch (error) {
      if (error.status !== 404) throw error;
      this.#drop(name); // it went away since it was listed
    }
  }

  #drop(name) {
    this.selected.delete(name);
    this.data.delete(name);
  }

  #select(name, is) {
    if (is) {
      const used = new Set(this.selected.values());
      if (used.size === MOST_SELECTED) this.#drop(this.selected.keys().next().value);
      let number = 0;
      while ([...this.selected.values()].includes(number)) number += 1;
      this.selected.set(name, number);
    } else this.#drop(name);
    this.list.draw(this.lines, this.selected);
    this.draw();
    this.poll();
  }

  /** Draws what is known. */
  draw() {
    const runs = [...(this.selected ?? [])]
      .map(([name, number]) => ({ name, number, data: this.data.get(name) }))
      .filter(({ data }) => data?.about);
    if (byId("runs-body").hidden) return;
    const x = chosen(byId("x-axis"));
    const axis = { xName: x === "step" ? "steps" : "tokens" };
    this.loss.draw({ ...axis, ...lossCurves(runs, x), log: chosen(byId("y-axis")) === "log" });
    const scores = scoreCurves(runs, x);
    byId("hellaswag").hidden = !runs.length;
    this.hellaswag.plotPlace.hidden = this.hellaswag.legend.hidden = !scores.curves.length;
    this.hellaswag.draw({ ...axis, ...scores });
    byId("about-runs").replaceChildren(make("h2", { text: "About" }), ...runs.map(about));
    byId("about-runs").hidden = !runs.length;
    this.samples.draw(runs.map(({ name, number, data }) => ({ name, colour: runColour(number), samples: data.samples })));
  }
}

/** What to do where there is nothing to show; null where there is. */
function emptyState(folder, lines) {
  if (lines.length) return null;
  if (folder === null) {
    return [
      make("h2", { text: "No folder of runs" }),
      make("p", { text: "The server was started without one. Stop it, and give the folder where your runs are:" }),
      make("pre", { text: "myna serve runs/pydoc --runs runs" }),
    ];
  }
  return [
    make("h2", { text: "No runs yet" }),
    make("p", {}, "The folder ", make("code", { text: folder }), " holds no run. Train one there; it shows up here once it has begun:"),
    make("pre", { text: `myna train --out ${quoted(`${folder}/pydoc`)}` }),
  ];
}

/** A path as it must be typed in a shell. */
function quoted(path) {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", `'"'"'`)}'`;
}

function lossCurves(runs, x) {
  const alone = runs.length === 1;
  const curves = runs.flatMap(({ name, number, data }) => {
    const [train, val] = [evened(data.train), data.val];
    const own = runColour(number);
    const other = alone ? runColour(number + 1) : own;
    const group = alone ? undefined : name;
    const faint = alone ? ["low", "high"].map((key) => ({ label: key, behind: SMOOTHED, colour: own, x: train[x], y: train[key], kind: "faint" })) : [];
    return [
      ...faint,
      { group, label: alone ? SMOOTHED : "train", colour: own, x: train[x], y: smoothed(train), kind: "line" },
      { group, label: "validation", colour: other, x: val[x], y: val.loss, kind: "dots" },
    ];
  });
  const loss = ({ data }) => data.about.references.loss;
  const notes = reasons(runs.filter((run) => loss(run).gpt2 === null).map((run) => [run.name, loss(run).why]));
  const lines = new Set(runs.map((run) => loss(run).label));
  const shared = lines.size === 1 && !notes.length ? loss(runs[0]) : null; // a line stands beside all curves, or none
  if (new Set(runs.map(({ data }) => data.about.tokenizer)).size > 1) notes.push(OTHER_TOKENS);
  return { curves, references: shared ? [{ value: shared.gpt2, side: "left", label: `${shared.label}: ${shared.gpt2}` }] : [], notes };
}

/** Why GPT-2's line is missing: a sentence for each reason, with the runs that have it. */
function reasons(found) {
  const names = new Map();
  for (const [name, why] of found) names.set(why, [...(names.get(why) ?? []), name]);
  return [...names].map(([why, runs]) => `GPT-2's line is not drawn. ${runs.join(", ")}: ${why}`);
}

function scoreCurves(runs, x) {
  const scored = runs.filter(({ data }) => data.hellaswag.step.length);
  if (!scored.length) return { curves: [], notes: runs.length ? [NO_SCORES] : [] };
  const curves = scored.map(({ name, number, data: { hellaswag } }) => ({
    group: name,
    colour: runColour(number),
    x: hellaswag[x],
    y: hellaswag.accuracy,
    errors: hellaswag.accuracy.map((share, n) => (hellaswag.items[n] ? Math.sqrt((share * (1 - share)) / hellaswag.items[n]) : null)),
    kind: "dots",
  }));
  const score = ({ data }) => data.about.references.hellaswag;
  const references = new Map();
  for (const { size, gpt2, gpt3 } of scored.map(score)) {
    if (size !== null) references.set(`GPT-2 ${size}: ${gpt2}`, gpt2).set(`GPT-3 ${size}: ${gpt3}`, gpt3);
  }
  const { chance } = score(scored[0]);
  references.set(`chance: ${chance}`, chance);
  const notes = scored.some(({ data }) => data.hellaswag.items.some(Boolean)) ? ["The band is one standard error to each side."] : [];
  notes.push(...reasons(scored.filter((run) => score(run).size === null).map((run) => [run.name, score(run).why])));
  return { curves, references: [...references].map(([label, value]) => ({ label, value, side: value === chance ? "right" : "left" })), notes };
}

/** A run in a few facts. */
function about({ name, number, data }) {
  const { recipe, val_bits_per_byte: bits } = data.about;
  const facts = [
    ["recipe", recipe.name],
    ["network", `${recipe.network}: ${recipe.n_layer} layers, ${recipe.n_head} heads, width ${recipe.n_embd}, ${recipe.block_size} positions`],
    ["text", [recipe.corpus ?? []].flat().join(", ")],
    ["tokenizer", recipe.tokenizer],
    ["batch", recipe.batch_tokens ? `${whole(recipe.batch_tokens)} tokens` : null],
    ["learning rate", recipe.learning_rate],
    ["bits per byte", bits === null ? null : bits.toFixed(3)],
    ["speed", speed(data)],
  ];
  const title = make("h3", {}, make("span.swatch"), name);
  title.firstChild.style.setProperty("--swatch", `var(${runColour(number)})`);
  const told = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return make("div", {}, title, make("dl.facts", {}, ...told.flatMap(([key, value]) => [make("dt", { text: key }), make("dd", { text: String(value) })])));
}

function speed({ latest, about: { writing, steps, step, recipe } }) {
  if (!latest?.tokens_per_second) return null;
  const rate = `${short(latest.tokens_per_second)} tokens/s`;
  const left = ((steps ?? 0) - (step ?? 0)) * (recipe.batch_tokens ?? 0);
  return writing && left > 0 ? `${rate}, about ${duration(left / latest.tokens_per_second)} left` : rate;
}
