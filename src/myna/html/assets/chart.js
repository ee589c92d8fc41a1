// A chart with its legend: curves over each other, and dotted lines for the values of other models.
import { make, withCode } from "./dom.js";
import { short } from "./numbers.js";
import uPlot from "./uplot/uPlot.esm.js";

const HEIGHT = 300; // pixels
const FONT = "12px system-ui, sans-serif";
const OPENING_SHARE = 0.05; // the steep fall of the first tokens may leave the picture at the top
const BAND_ALPHA = 0.18;
const FEW_TIMES = 5; // from the lowest to the highest value of a scale that spans little
const STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5];
const MOST_TICKS = 9;
const TICKS = [1, 1.5, 2, 3, 4, 5, 6, 8]; // of a logarithmic scale, in each decade

/** The colour that the style sheet has under a name now. */
export function colour(name) {
  const probe = make("span.probe");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/**
 * A curve: {group, label, colour (a name in the style sheet), x, y, errors, kind}.
 * group: the run that it is of, where there are several; label: what its values are.
 * kind: "line"; "dots", a few values; "dashed", another project's curve; "faint", the lowest or the highest of the
 * single values behind a line, with `behind`, that line's label. errors: of each value, where known.
 * A reference: {value, label, side, above}; its words stand above or below the line's left or right end, where the
 * curves are usually not.
 */
export class Chart {
  /**
   * @param {(value: number) => string} format a value of the curves.
   * @param {number} leastSpan of the scale: less would make much of nothing.
   * @param {boolean} fromZero the scale begins at 0.
   * @param {string} heading the tag of the title.
   * @param {string[]} hidden lines of the legend that are switched off at first.
   * @param {() => void} onToggle called when a person has switched one.
   */
  constructor(place, { title, format, leastSpan = 0.1, fromZero = false, heading = "h2", hidden = [], onToggle = () => {} }) {
    this.format = format;
    this.span = { leastSpan, fromZero };
    this.title = make(heading, { text: title });
    this.plotPlace = make("div.plot", { role: "img", tabindex: "0" });
    this.legend = make("ul.legend");
    this.notes = make("div.notes");
    this.hidden = new Set(hidden); // keys of the curves that a person has switched off
    this.onToggle = onToggle;
    place.replaceChildren(this.title, this.plotPlace, this.legend, this.notes);
    this.plotPlace.addEventListener("keydown", (event) => this.#walk(event));
    new ResizeObserver(() => this.#fit()).observe(this.plotPlace);
  }

  /** Draws curves anew. */
  draw({ curves, references = [], xName, log = false, notes = [] }) {
    this.curves = curves.filter(({ x }) => x.length);
    this.references = references;
    log &&= this.curves.every(({ y }) => y.every((value) => value > 0)); // what is 0 has no place on such a scale
    this.log = log;
    const tables = this.curves.map(({ x, y }) => [x, y]);
    const data = tables.length ? uPlot.join(tables) : [[], []];
    const signature = JSON.stringify([this.curves.map(({ group, label, colour: c, kind }) => [group, label, c, kind]), references, xName, log, colour("--ink")]);
    this.#bound();
    if (signature === this.signature) this.plot.setData(data);
    else this.#build(data, { xName, log });
    this.signature = signature;
    this.#describe(xName);
    this.#list();
    this.#tell(null);
    this.notes.replaceChildren(...notes.map((text) => make("p.hint", {}, ...withCode(text))));
  }

  #build(data, { xName, log }) {
    this.plot?.destroy();
    const [muted, faint] = [colour("--muted"), colour("--line")];
    const axis = { font: FONT, stroke: muted, ticks: { show: false }, grid: { stroke: faint, width: 1 } };
    const options = {
      width: this.plotPlace.clientWidth || 600,
      height: HEIGHT,
      legend: { show: false },
      padding: [10, 14, 0, 0],
      scales: {
        x: { time: false, range: (_, low, high) => [0, high > low ? high * 1.01 : (high || 1) * 1.05] },
        y: { distr: log ? 3 : 1, range: () => this.bounds },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 28, space: 70, values: (_, splits) => splits.map(short) },
        {
          ...axis,
          size: 54,
          values: (_, splits) => splits.map((value) => (value === null ? "" : tickName(value))),
          ...(log ? { splits: (_, __, low, high) => logTicks(low, high), filter: (_, splits) => splits } : {}),
        },
      ],
      series: [{}, ...(this.curves.length ? this.curves.map((curve) => ({ ...series(curve), show: !this.hidden.has(key(curve)) })) : [{}])],
      cursor: { y: false, drag: { x: false, y: false }, dataIdx: nearest, points: { size: 7 } },
      // Below the curves: no line or word may hide a value.
      hooks: { drawAxes: [(plot) => this.#drawBands(plot), (plot) => this.#drawReferences(plot)], setCursor: [(plot) => this.#tell(plot)] },
    };
    this.xName = xName;
    this.plotPlace.replaceChildren();
    this.plot = new uPlot(options, data, this.plotPlace);
  }

  #shown() {
    return this.curves.filter((curve) => !this.hidden.has(key(curve)));
  }

  #bound() {
    const shown = this.#shown();
    this.bounds = yBounds(shown.length ? shown : this.curves, this.references, { log: this.log, ...this.span });
  }

  /** Switches the curves of a line of the legend off or on. */
  #toggle(name, button) {
    if (!this.hidden.delete(name)) this.hidden.add(name);
    button.setAttribute("aria-pressed", String(!this.hidden.has(name)));
    this.#bound();
    this.onToggle();
    this.plot.batch(() => this.curves.forEach((curve, n) => this.plot.setSeries(n + 1, { show: !this.hidden.has(key(curve)) })));
  }

  /** The room between the lowest and the highest of the single values, and a standard error around each score. */
  #drawBands(plot) {
    const [low, high] = this.#shown().filter(({ kind }) => kind === "faint");
    if (high) fill(plot, low.x, low.y, high.y, low.colour);
    for (const { x, y, errors, colour: name } of this.#shown()) {
      if (!errors) continue;
      const by = (sign) => y.map((value, n) => value + sign * (errors[n] ?? 0));
      fill(plot, x, by(-1), by(1), name);
    }
  }

  #drawReferences(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    for (const { value, label, side, above = side === "left" } of this.references) {
      const y = Math.round(plot.valToPos(value, "y", true));
      ctx.strokeStyle = ctx.fillStyle = colour("--muted");
      ctx.lineWidth = ratio;
      ctx.setLineDash([3 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      // Chance is what curves rise from: its words stand under its line.
      ctx.textBaseline = above ? "bottom" : "top";
      const words = above ? y - 3 * ratio : y + 4 * ratio;
      ctx.textAlign = side;
      const x = side === "left" ? bbox.left + 4 * ratio : bbox.left + bbox.width - 4 * ratio;
      const room = bbox.width - 8 * ratio; // on a phone long words are drawn narrower
      // The grid crosses the words: a rim of the background keeps them legible.
      ctx.setLineDash([]);
      ctx.lineWidth = 4 * ratio;
      ctx.strokeStyle = colour("--card");
      ctx.strokeText(label, x, words, room);
      ctx.fillText(label, x, words, room);
    }
    ctx.restore();
  }

  /** The legend's lines: one for each run, or for each curve where there is one run. Where there are several, a line switches its curves. */
  #list() {
    const told = this.curves.filter(({ kind }) => kind !== "faint");
    const keys = new Set(told.map(key));
    const items = new Map();
    this.values = new Map(); // curve -> where its value stands
    for (const curve of told) {
      const name = key(curve);
      if (!items.has(name)) items.set(name, make("li", {}, this.#switch(curve, keys.size > 1)));
      if (curve.group && curve.label) items.get(name).append(make("span.hint", { text: curve.label }));
      const value = make("b");
      items.get(name).append(value);
      this.values.set(curve, value);
    }
    this.where = make("li.hint");
    const lines = this.references.map(({ label }) => make("li.hint", {}, make("span.swatch.dashes"), label));
    this.legend.replaceChildren(...items.values(), this.where, ...lines);
  }

  #switch(curve, several) {
    const name = key(curve);
    const inside = [swatch(curve), make("span.legend-name", { text: name })];
    if (!several) return make("span.toggle", {}, ...inside);
    const button = make("button.toggle", { type: "button", "aria-pressed": String(!this.hidden.has(name)), title: "show or hide" }, ...inside);
    button.addEventListener("click", () => this.#toggle(name, button));
    return button;
  }

  /** Writes the values under the cursor into the legend, or the last ones. */
  #tell(plot) {
    const at = plot?.cursor.idx ?? null;
    this.curves.forEach((curve, n) => {
      if (!this.values.has(curve)) return;
      const index = at === null ? curve.y.length - 1 : curve.x.indexOf(plot.data[0][plot.cursor.idxs[n + 1]]);
      this.values.get(curve).textContent = this.#value(curve, index);
    });
    this.where.textContent = at === null ? "last values" : `at ${short(plot.data[0][at])} ${this.xName}`;
  }

  #value({ y, errors }, index) {
    if (y[index] === undefined) return "";
    return this.format(y[index]) + (errors?.[index] ? ` ± ${this.format(errors[index])}` : "");
  }

  #describe(xName) {
    const told = this.curves
      .filter(({ kind }) => kind !== "faint")
      .map(({ group = "", label = "", x, y }) => `${group} ${label}: ${this.format(y[0])} at first, ${this.format(y.at(-1))} after ${short(x.at(-1))} ${xName}`);
    const lines = this.references.map(({ label }) => `line: ${label}`);
    const text = [this.title.textContent, ...told, ...lines].join(". ");
    this.plotPlace.setAttribute("aria-label", `Chart. ${text}. Arrow keys move along it.`);
  }

  #walk(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !this.plot) return;
    event.preventDefault();
    const { width } = this.plot.over.getBoundingClientRect();
    const from = this.plot.cursor.left ?? -1;
    const left = from < 0 ? (by > 0 ? 0 : width) : from + (by * width) / 100;
    this.plot.setCursor({ left: Math.max(0, Math.min(width, left)), top: 10 });
  }

  #fit() {
    const width = this.plotPlace.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }
}

/** The line of the legend that a curve belongs to. */
const key = ({ group, behind, label }) => group ?? behind ?? label;

const SWATCHES = { dots: "span.swatch.dots", dashed: "span.swatch.dashes" };

function swatch({ colour: name, kind }) {
  const mark = make(SWATCHES[kind] ?? "span.swatch");
  mark.style.setProperty("--swatch", `var(${name})`);
  return mark;
}

/** Fills the room between two curves. */
function fill({ ctx, bbox, valToPos }, x, low, high, name) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.beginPath();
  const to = (at, value) => ctx.lineTo(valToPos(at, "x", true), valToPos(value, "y", true));
  x.forEach((at, n) => to(at, low[n]));
  for (let n = x.length - 1; n >= 0; n -= 1) to(x[n], high[n]);
  ctx.fillStyle = colour(name);
  ctx.globalAlpha = BAND_ALPHA;
  ctx.fill();
  ctx.restore();
}

function series({ colour: name, kind }) {
  const stroke = colour(name);
  if (kind === "faint") return { stroke, alpha: 0.22, width: 1, points: { show: false }, spanGaps: true };
  if (kind === "dots") return { stroke, width: 1, spanGaps: true, points: { show: true, size: 7, fill: stroke, stroke: colour("--card"), width: 1 } };
  const dash = kind === "dashed" ? { dash: [6, 4], width: 1.5 } : { width: 2 };
  return { stroke, ...dash, points: { show: false }, spanGaps: true };
}

const tickName = (value) => (Math.abs(value) >= 10_000 ? short(value) : String(Number(value.toPrecision(4))));

/** The nearest point of a curve that has one: curves of several runs have their points at other places. */
function nearest(plot, number, index) {
  const values = plot.data[number];
  for (let by = 0; by < values.length; by += 1) {
    if (values[index - by] !== null && values[index - by] !== undefined) return index - by;
    if (values[index + by] !== null && values[index + by] !== undefined) return index + by;
  }
  return index;
}

/** From a little under the lowest value to a little over the highest that is left after the opening fall. */
function yBounds(curves, references, { log, leastSpan, fromZero }) {
  let [low, high, start] = [Infinity, -Infinity, -Infinity];
  const end = Math.max(...curves.map(({ x }) => x.at(-1)));
  for (const { x, y, kind, errors } of curves) {
    if (errors) for (const [n, error] of errors.entries()) [low, high] = [Math.min(low, y[n] - error), Math.max(high, y[n] + error)];
    if (kind === "faint") {
      for (const value of y) low = Math.min(low, value);
      continue;
    }
    y.forEach((value, at) => {
      low = Math.min(low, value);
      start = Math.max(start, value);
      if (log || x[at] >= OPENING_SHARE * end) high = Math.max(high, value);
    });
  }
  for (const { value } of references) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (!Number.isFinite(low)) return [0, 1];
  if (!Number.isFinite(high) || start - high < 0.5 * (high - low)) high = Math.max(high, start); // too little to hide
  if (log) return [low * 0.97, high * 1.04];
  if (fromZero) return [0, 1.08 * Math.max(high, start) || 1];
  const missing = Math.max(0, leastSpan - (high - low)) / 2;
  [low, high] = [low - missing, high + missing];
  const margin = 0.06 * (high - low);
  return [low - margin, high + 2 * margin];
}

/** Ticks of a logarithmic scale: even ones where it spans little, else the same in each decade. */
function logTicks(low, high) {
  const ticks = [];
  if (high / low < FEW_TIMES) {
    const step = STEPS.find((size) => (high - low) / size <= MOST_TICKS) ?? high - low;
    for (let n = Math.ceil(low / step); n * step <= high; n += 1) ticks.push(n * step);
    return ticks;
  }
  for (let decade = 10 ** Math.floor(Math.log10(low)); decade <= high; decade *= 10) {
    for (const tick of TICKS) {
      const value = tick * decade;
      if (value >= low && value <= high) ticks.push(value);
    }
  }
  return ticks;
}
