// What the page knows of one run: its curves and samples, read on from where the last answer ended.
import { ask } from "./api.js";

const MOST_POINTS = 4000; // kept of a training curve; then neighbours are joined
const DRAWN_POINTS = 900; // of them
const SMOOTHING_SHARE = 0.02; // as in the picture of `myna report`

/** One run. `poll` asks for what is new. */
export class RunData {
  constructor(name) {
    this.name = name;
    this.about = null;
    this.#forgetCurves();
    this.#forgetSamples();
  }

  /** Asks for what is new, and says whether anything is. */
  async poll() {
    const path = `/v1/runs/${encodeURIComponent(this.name)}`;
    const curves = await this.#pollCurves(path);
    const samples = await this.#pollSamples(path);
    if (curves || !this.about) this.about = await ask(path);
    return curves || samples;
  }

  async #pollCurves(path) {
    const before = this.nextMetric;
    let answer;
    do {
      answer = await ask(`${path}/metrics?after=${this.nextMetric}`);
      if (answer.restarted) this.#forgetCurves();
      for (const name of ["train", "val", "hellaswag"]) append(this[name], answer[name]);
      thin(this.train);
      if (answer.latest.train_loss !== null) this.latest = answer.latest;
      this.nextMetric = answer.next;
    } while (answer.more);
    return answer.restarted || this.nextMetric !== before;
  }

  async #pollSamples(path) {
    const before = this.nextSample;
    let answer;
    do {
      answer = await ask(`${path}/samples?after=${this.nextSample}`);
      if (answer.restarted) this.#forgetSamples();
      for (const sample of answer.samples) this.#addSample(sample);
      this.nextSample = answer.next;
    } while (answer.more);
    return answer.restarted || this.nextSample !== before;
  }

  /** A run that was taken up again writes some samples again: the later ones hold. */
  #addSample(sample) {
    this.samples = this.samples.filter(({ step }) => step === null || sample.step === null || step < sample.step);
    this.samples.push(sample);
  }

  #forgetCurves() {
    this.nextMetric = 0;
    this.train = { step: [], tokens: [], mean: [], low: [], high: [], n: [] };
    this.val = { step: [], tokens: [], loss: [], bits_per_byte: [] };
    this.hellaswag = { step: [], tokens: [], accuracy: [], items: [] };
    this.latest = null;
  }

  #forgetSamples() {
    this.nextSample = 0;
    this.samples = [];
  }
}

/** Adds columns to columns. A run that was taken up again goes back some steps: what it repeats is replaced. */
function append(columns, more) {
  if (!more.step.length) return;
  let keep = columns.step.length;
  while (keep && columns.step[keep - 1] >= more.step[0]) keep -= 1;
  for (const name of Object.keys(columns)) columns[name] = [...columns[name].slice(0, keep), ...more[name]];
}

/** Joins neighbours of a training curve that has grown long; the newest points stay as they are. */
function thin(train) {
  if (train.step.length <= MOST_POINTS) return;
  const old = MOST_POINTS / 2;
  const older = joined(train, 0, old, (_, points) => points === 2);
  for (const name of Object.keys(train)) train[name] = [...older[name], ...train[name].slice(old)];
}

/** A training curve whose points stand for about equally many steps: the newest come one by one. */
export function evened(train) {
  const steps = train.n.reduce((sum, n) => sum + n, 0);
  const each = Math.ceil(steps / DRAWN_POINTS);
  return joined(train, 0, train.n.length, (n) => n >= each);
}

/** The points of a training curve from one place to another, joined until a group is full. */
function joined(train, begin, end, isFull) {
  const groups = { step: [], tokens: [], mean: [], low: [], high: [], n: [] };
  let [n, sum, low, high, points] = [0, 0, Infinity, -Infinity, 0];
  for (let at = begin; at < end; at += 1) {
    n += train.n[at];
    sum += train.mean[at] * train.n[at];
    low = Math.min(low, train.low[at]);
    high = Math.max(high, train.high[at]);
    points += 1;
    if (!isFull(n, points) && at + 1 < end) continue;
    groups.step.push(train.step[at]);
    groups.tokens.push(train.tokens[at]);
    groups.mean.push(sum / n);
    groups.low.push(low);
    groups.high.push(high);
    groups.n.push(n);
    [n, sum, low, high, points] = [0, 0, Infinity, -Infinity, 0];
  }
  return groups;
}

/** A centred running mean of an evened training curve, each point weighed by its steps. */
export function smoothed({ mean, n }) {
  const half = Math.max(1, Math.round((mean.length * SMOOTHING_SHARE) / 2));
  const sums = [0];
  const weights = [0];
  mean.forEach((value, at) => {
    sums.push(sums[at] + value * n[at]);
    weights.push(weights[at] + n[at]);
  });
  return mean.map((_, at) => {
    const [first, last] = [Math.max(at - half, 0), Math.min(at + half + 1, mean.length)];
    return (sums[last] - sums[first]) / (weights[last] - weights[first]);
  });
}
