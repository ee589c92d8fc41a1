// Elements, made without HTML: what models, runs and people write becomes text, never markup.

/**
 * An element.
 * @param {string} tag its name; "p.hint" gives it a class.
 * @param {object} attributes by name; "text" is its text, "on…" a listener; false and null leave one out.
 * @param {...(Node|string)} children
 */
export function make(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key === "text") element.textContent = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/** A text as nodes; what stands between backticks is code. */
export const withCode = (text) => text.split("`").map((part, n) => (n % 2 ? make("code", { text: part }) : part));

/** Shows a message in a place for problems; hides the place where there is none. */
export function showProblem(place, message) {
  place.hidden = !message;
  place.replaceChildren(...withCode(message ?? ""));
}

/** Calls a function once things have been quiet for a while. */
export function debounced(milliseconds, work) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}

/** The value that is chosen in a group of radio buttons. */
export const chosen = (group) => group.querySelector("input:checked").value;
