// Sets the theme before anything is painted: what was chosen here, else what the system says.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("flow-theme"); } catch { /* storage is off */ }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
