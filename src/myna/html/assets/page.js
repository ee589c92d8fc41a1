// A page in one file: draws its charts, and lets a person choose their axes.
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

const charts = [...document.querySelectorAll(".chart")].map((place) => {
  const given = JSON.parse(place.querySelector("script").textContent);
  const { title, format, leastSpan, fromZero } = given;
  return { given, chart: new Chart(place, { title, format: FORMATS[format], leastSpan, fromZero, heading: "h3" }) };
});

// Only a chart of several axes gives a choice.
const offered = charts.map(({ given }) => Object.keys(given.curves[0]?.x ?? {})).filter((names) => names.length > 1);
const axes = [...new Set(offered.flat())];
const chosen = { x: axes[0], y: "linear" };

function draw() {
  for (const { given, chart } of charts) {
    const names = Object.keys(given.curves[0]?.x ?? {});
    const xName = names.includes(chosen.x) ? chosen.x : names[0];
    const curves = given.curves.map((curve) => ({ ...curve, x: curve.x[xName] }));
    chart.draw({ ...given, curves, xName, log: given.logarithmic && chosen.y === "logarithmic" });
  }
}

/** Radio buttons for an axis of all charts; none where there is no choice. */
function choice(axis, label, names) {
  if (names.length < 2) return [];
  const inputs = names.map((name, n) => {
    const input = make("input", { type: "radio", name: axis, value: name, checked: n === 0 });
    input.addEventListener("change", () => {
      chosen[axis] = name;
      draw();
    });
    return make("label", {}, input, name);
  });
  return [make("fieldset.choice", {}, make("legend", { text: label }), ...inputs)];
}

const scales = charts.some(({ given }) => given.logarithmic) ? ["linear", "logarithmic"] : [];
const choices = [...choice("x", "Charts against", axes), ...choice("y", "Scale", scales)];
if (choices.length) byId("choices").replaceChildren(...choices);
draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
