// A word's merges, step by step: the rank of every pair of neighbours, and the lowest, which merges next.
import { make } from "./dom.js";
import { legible, legibleBytes, nodes } from "./legible.js";
import { count, whole } from "./numbers.js";

/** What explains a word of /v1/merges. */
export function merges({ word, steps }) {
  const title = make("h3", {}, "How ", make("span.word.text", {}, ...nodes(legible(word))), " is merged");
  if (steps === null) return [title, make("p.hint", { text: "The word is too long to show its merges." })];
  const last = steps.at(-1);
  const told =
    steps.length === 1
      ? "No two neighbours have a rank, so nothing merges."
      : `The word begins as ${count(steps[0].parts.length, "byte")}. The pair with the lowest rank merges, again and again, until no pair has one.`;
  return [
    title,
    make("p.hint", { text: told }),
    make("ol.steps", {}, ...steps.map((step) => make("li", {}, line(step)))),
    make("p.hint", { text: `The end: ${count(last.parts.length, "token")}.` }),
  ];
}

function line({ bytes, ranks, chosen }) {
  const parts = [];
  bytes.forEach((part, n) => {
    const merging = chosen !== null && (n === chosen || n === chosen + 1);
    parts.push(make(merging ? "span.part.merging" : "span.part", {}, ...nodes(legibleBytes(part))));
    if (n < ranks.length) {
      const rank = ranks[n] === null ? "–" : whole(ranks[n]);
      const kind = n === chosen ? "span.rank.merging" : "span.rank";
      parts.push(make(kind, { title: ranks[n] === null ? "no such token" : "rank of the pair" }, rank));
    }
  });
  return make("div.step.text", {}, ...parts);
}
