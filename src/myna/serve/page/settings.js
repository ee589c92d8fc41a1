// The sampling controls of one side, and the request that they make.
import { make } from "./dom.js";

const FIELDS = [
  { name: "max_tokens", label: "Most new tokens", value: "128", min: "1", step: "1", hint: "it may end before" },
  { name: "temperature", label: "Temperature", value: "0.8", min: "0", step: "0.1", hint: "0: the likeliest only" },
  { name: "top_k", label: "Top-k", value: "50", min: "1", step: "1", hint: "empty: all tokens" },
  { name: "top_p", label: "Top-p", value: "", min: "0", max: "1", step: "0.05", hint: "empty: all tokens" },
  { name: "min_p", label: "Min-p", value: "", min: "0", max: "1", step: "0.01", hint: "empty: all tokens" },
  { name: "repetition_penalty", label: "Repetition penalty", value: "", min: "0", step: "0.1", hint: "over 1: repeats less" },
  { name: "seed", label: "Seed", value: "", min: "0", step: "1", hint: "empty: new each run" },
];

/** The controls, as labels with inputs. `values` stand in place of the usual ones. */
export function settingFields(values = {}) {
  const fields = FIELDS.map(({ name, label, value: usual, hint, ...limits }) =>
    make(
      "label.field",
      {},
      make("span.label", { text: label }),
      // "any": a person may type finer numbers than the arrows give. The server checks them.
      make("input", { name, type: "number", inputmode: "decimal", value: values[name] ?? usual, autocomplete: "off", ...limits, step: "any", "data-step": limits.step }),
      make("span.hint", { text: hint }),
    ),
  );
  const stop = make(
    "label.field",
    {},
    make("span.label", { text: "Stop texts" }),
    make("textarea", { name: "stop", rows: "1", spellcheck: "false", autocomplete: "off" }),
    make("span.hint", { text: "one a line; \\n: a break" }),
  );
  const place = make("div.fields", {}, ...fields, stop);
  place.addEventListener("keydown", step);
  return place;
}

/** Arrow keys move by a step that suits the setting: browsers move by 1 where any number is allowed. */
function step(event) {
  const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  const input = event.target;
  if (!by || !input.dataset.step) return;
  event.preventDefault();
  const size = Number(input.dataset.step);
  const { min, max } = input;
  const moved = Number(((input.valueAsNumber || 0) + by * size).toFixed(4));
  input.value = String(Math.min(max === "" ? Infinity : Number(max), Math.max(Number(min), moved)));
  input.dispatchEvent(new Event("input", { bubbles: true }));
}

/**
 * What the controls ask for, as fields of a request. An empty control is left out.
 * @throws {Error} a control that holds no number.
 */
export function readSettings(place) {
  const asked = {};
  for (const { name, label } of FIELDS) {
    const input = place.querySelector(`[name=${name}]`);
    if (input.validity.badInput) throw new Error(`${label} is no number. Give one, or leave it empty.`);
    if (input.value !== "") asked[name] = Number(input.value);
  }
  const stop = stopTexts(place.querySelector("[name=stop]").value);
  if (stop.length) asked.stop = stop;
  return asked;
}

/** "a\nb" typed in two lines are two texts; a typed backslash and n are a line break. */
function stopTexts(typed) {
  const escapes = { n: "\n", t: "\t", "\\": "\\" };
  return typed
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => line.replace(/\\([nt\\])/g, (_, letter) => escapes[letter]));
}

/** The settings in a line, for where the controls are folded away. `most`: new tokens where none are asked for. */
export function inShort(place, most = 16) {
  const shown = [
    ["temperature", "temperature"], ["top_k", "top-k"], ["top_p", "top-p"], ["min_p", "min-p"],
    ["repetition_penalty", "penalty"], ["seed", "seed"],
  ];
  const value = (name) => place.querySelector(`[name=${name}]`).value;
  const parts = shown.filter(([name]) => value(name) !== "").map(([name, label]) => `${label} ${value(name)}`);
  return [...parts, `${value("max_tokens") || most} tokens`].join(" · ");
}
