// The page: four views behind tabs, a theme, and the models there are.
import { ApiError, ask } from "./api.js";
import { setUpChat } from "./chat.js";
import { setUpComplete } from "./complete.js";
import { byId, showProblem } from "./dom.js";
import { setUpKey } from "./key.js";
import { close } from "./panel.js";
import { setUpRuns } from "./runs.js";
import { setUpTokenize } from "./tokenize.js";

const views = ["complete", "chat", "tokenize", "runs"];
const shown = new EventTarget(); // tells a view that it is shown

function show(view, { focus = false } = {}) {
  for (const name of views) {
    const tab = byId(`tab-${name}`);
    const is = name === view;
    tab.setAttribute("aria-selected", String(is));
    tab.tabIndex = is ? 0 : -1;
    byId(name).hidden = !is;
    if (is && focus) tab.focus();
  }
  close();
  history.replaceState(null, "", `#${view}`);
  shown.dispatchEvent(new Event(view));
}

function setUpTabs() {
  const list = document.querySelector("[role=tablist]");
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) show(tab.getAttribute("aria-controls"));
  });
  list.addEventListener("keydown", (event) => {
    const at = views.findIndex((name) => byId(`tab-${name}`) === document.activeElement);
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const to = by ? (at + by + views.length) % views.length : { Home: 0, End: views.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(views[to], { focus: true });
  });
  const asked = location.hash.slice(1);
  show(views.includes(asked) ? asked : "complete");
}

function setUpTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = byId("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => {
    button.textContent = isDark() ? "Light" : "Dark"; // what it does
    shown.dispatchEvent(new Event("theme"));
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      // Storage may be switched off. Then the choice holds until the page is left.
    }
    tell();
  });
  system.addEventListener("change", tell);
  tell();
}

async function models() {
  try {
    showProblem(byId("server-problem"), null);
    return (await ask("/v1/models")).data;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    showProblem(byId("server-problem"), `${error.message} Then reload this page.`);
    return [];
  }
}

setUpKey();
setUpTheme();
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") close();
});
setUpRuns(shown);
setUpTabs();
const found = await models();
setUpComplete(found);
setUpChat(found);
setUpTokenize(found, shown);
