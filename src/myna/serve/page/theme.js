// The theme that was chosen here before; without one the system's holds. Not a module: it runs before the first paint.
(() => {
  try {
    const chosen = localStorage.getItem("theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be switched off. Then the system's theme holds.
  }
})();
