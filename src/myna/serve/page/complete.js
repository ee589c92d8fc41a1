// The view Complete: a prompt, and one or two models that go on from it; with a suffix, up to there.
import { byId } from "./dom.js";
import { Side } from "./side.js";

const WIDE = matchMedia("(min-width: 56rem)"); // room for the settings beside the text

/** Sets the view up for the models that there are. */
export function setUpComplete(models) {
  if (!models.length) return;
  const onChange = () => sayRunning(sides);
  const sides = [1, 2].map((number) => new Side(models, { number, onChange }));
  if (models.length > 1) sides[1].model.value = models[1].id;
  const shown = () => (byId("beside").checked ? sides : sides.slice(0, 1));

  const arrange = () => {
    const two = byId("beside").checked;
    byId("sides").replaceChildren(...shown().map((side) => side.element));
    byId("complete").classList.toggle("two", two);
    if (!two) sides[1].stop();
    for (const side of sides) side.settings.open = !two && WIDE.matches;
    offerSuffix();
  };
  const offerSuffix = () => (byId("suffix-field").hidden = !shown().some((side) => side.canFill));
  const suffix = () => (byId("suffix-field").hidden ? "" : byId("suffix").value);
  const run = () => shown().forEach((side) => side.run(byId("prompt").value, suffix()));
  const stop = () => sides.forEach((side) => side.stop());

  byId("beside").addEventListener("change", arrange);
  byId("sides").addEventListener("change", offerSuffix);
  byId("run").addEventListener("click", run);
  byId("stop").addEventListener("click", stop);
  byId("complete").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !byId("complete").hidden && !byId("key").open) stop();
  });
  arrange();
}

function sayRunning(sides) {
  const running = sides.some((side) => side.running);
  const stop = byId("stop");
  // A button that is switched off loses the focus to nowhere.
  if (!running && document.activeElement === stop) byId("run").focus();
  stop.disabled = !running;
}
