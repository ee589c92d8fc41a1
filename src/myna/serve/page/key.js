// Asks a person for the server's API key. The caller keeps it in memory; nothing is stored.
import { byId } from "./dom.js";

let asking = null; // one dialog for all requests that wait for the key

/**
 * The key that a person gives; null where they give none.
 * @param {boolean} wasWrong another key was tried before.
 */
export function askForKey(wasWrong) {
  asking ??= ask(wasWrong).finally(() => (asking = null));
  return asking;
}

function ask(wasWrong) {
  const dialog = byId("key");
  const value = byId("key-value");
  byId("key-problem").hidden = !wasWrong;
  value.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  value.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue ? value.value.trim() : null), { once: true });
  });
}

/** Connects the dialog's buttons, once. */
export function setUpKey() {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault(); // the key goes nowhere but into a header
    byId("key").close("given");
  });
  byId("key-cancel").addEventListener("click", () => byId("key").close(""));
}
