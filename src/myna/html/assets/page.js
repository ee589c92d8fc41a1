// A page in one file: draws its charts, lets a person choose their axes, and reads itself anew where it is written on.
import { Chart } from "./chart.js";
import { byId, make } from "./dom.js";
import { short, whole } from "./numbers.js";

// How a value is written; `Chart` in page.py names one of them.
const FORMATS = {
  loss: (value) => value.toFixed(4),
  short,
  whole,
  percent: (value) => `${(100 * value).toFixed(1)}%`,
  significant: (value) => String(Number(value.toPrecision(3))),
};

// What a person has chosen outlasts a reload of this page. It stands in the entry of the browser's history: the storage
// of a session is written later than a page of a file can be reloaded.
const chosen = { x: null, y: "linear", hidden: {}, reload: true, ...history.state };

function keep() {
  charts.forEach(({ given, chart }) => (chosen.hidden[given.title] = [...chart.hidden]));
  history.replaceState(chosen, "");
}
// A link within the page makes a new entry.
addEventListener("hashchange", () => keep());

const charts = [...document.querySelectorAll(".chart")].map((place) => {
  const given = JSON.parse(place.querySelector("script").textContent);
  const { title, format, leastSpan, fromZero } = given;
  const options = { title, format: FORMATS[format], leastSpan, fromZero, heading: "h3", hidden: chosen.hidden[title], onToggle: keep };
  return { given, chart: new Chart(place, options) };
});
const axesOf = ({ curves }) => Object.keys(curves[0]?.x ?? {});

function draw() {
  for (const { given, chart } of charts) {
    const names = axesOf(given);
    const xName = names.includes(chosen.x) ? chosen.x : names[0];
    const curves = given.curves.map((curve) => ({ ...curve, x: curve.x[xName] }));
    chart.draw({ ...given, curves, xName, log: given.logarithmic && chosen.y === "logarithmic" });
  }
}

/** Radio buttons for an axis of all charts; none where there is no choice. */
function choice(axis, label, names) {
  if (names.length < 2) return [];
  if (!names.includes(chosen[axis])) chosen[axis] = names[0];
  const buttons = names.map((name) => {
    const input = make("input", { type: "radio", name: axis, value: name, checked: name === chosen[axis] });
    input.addEventListener("change", () => {
      chosen[axis] = name;
      keep();
      draw();
    });
    return make("label", {}, input, name);
  });
  return [make("fieldset.choice", {}, make("legend", { text: label }), ...buttons)];
}

/** A box that says that the page reads itself anew, and stops it. */
function reloading(seconds) {
  if (!seconds) return [];
  const box = make("input", { type: "checkbox", checked: chosen.reload });
  box.addEventListener("change", () => {
    chosen.reload = box.checked;
    keep();
  });
  setInterval(() => {
    if (box.checked && document.visibilityState === "visible") location.reload();
  }, 1000 * seconds);
  return [make("label.reload", {}, box, `Read anew every ${seconds} s while the run goes on`)];
}

// Only a chart of several axes gives a choice.
const offered = charts.map(({ given }) => axesOf(given)).filter((names) => names.length > 1);
const axes = [...new Set(offered.flat())];
const scales = charts.some(({ given }) => given.logarithmic) ? ["linear", "logarithmic"] : [];
byId("choices").replaceChildren(
  ...choice("x", "Charts against", axes),
  ...choice("y", "Scale", scales),
  ...reloading(Number(document.body.dataset.reload)),
);
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
