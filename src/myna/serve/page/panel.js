// The small panel beside a token: shown where the pointer or the focus is, gone with Escape.
import { byId } from "./dom.js";

const GAP = 8; // pixels between a token and its panel

/**
 * Gives each `.token` of a place a panel, and lets arrow keys walk from token to token. The place is one tab stop.
 * @param {(token: Element) => Node[]} describe what the panel of a token says.
 */
export function describeTokens(place, describe) {
  const show = (event) => {
    const token = event.target.closest(".token");
    if (token && place.contains(token)) open(token, describe(token));
  };
  place.addEventListener("pointerover", show);
  place.addEventListener("focusin", (event) => {
    show(event);
    holdTabStop(place, event.target.closest(".token"));
  });
  place.addEventListener("pointerout", close);
  place.addEventListener("focusout", close);
  place.addEventListener("keydown", (event) => walk(place, event));
}

/** Makes a new token of a place reachable: by Tab where it is the first, by arrow keys else. */
export function addToken(place, token) {
  token.tabIndex = place.querySelector(".token") ? -1 : 0;
  place.append(token);
}

/** Hides the panel. */
export function close() {
  const panel = byId("panel");
  if (panel.hidden) return;
  panel.hidden = true;
  document.querySelector("[aria-describedby=panel]")?.removeAttribute("aria-describedby");
}

function open(token, content) {
  close();
  const panel = byId("panel");
  panel.replaceChildren(...content);
  panel.hidden = false;
  token.setAttribute("aria-describedby", "panel");
  // A token may be broken over two lines: the panel stands at its longer part.
  const [at] = [...token.getClientRects()].sort((a, b) => b.width - a.width);
  if (!at) return close();
  const { offsetWidth: width, offsetHeight: height } = panel;
  const left = Math.max(GAP, Math.min(at.left, document.documentElement.clientWidth - width - GAP));
  const below = at.bottom + GAP;
  const top = below + height <= window.innerHeight ? below : Math.max(GAP, at.top - GAP - height);
  panel.style.left = `${left + window.scrollX}px`;
  panel.style.top = `${top + window.scrollY}px`;
}

function holdTabStop(place, token) {
  if (!token) return;
  for (const other of place.querySelectorAll(".token[tabindex='0']")) other.tabIndex = -1;
  token.tabIndex = 0;
}

function walk(place, event) {
  const tokens = [...place.querySelectorAll(".token")];
  const at = tokens.indexOf(document.activeElement);
  if (at < 0) return;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tokens.length - 1 }[event.key];
  if (to === undefined || !tokens[to]) return;
  event.preventDefault();
  tokens[to].focus();
}
