// Light, dark, or as the system has it.

const NAME = "slingshot-theme";
const THEMES = { system: "◐", light: "☀", dark: "☾" };

export function startTheme(control) {
  apply(control, localStorage.getItem(NAME) ?? "system");
  control.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    apply(control, names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
  });
}

function apply(control, theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem(NAME, theme);
  control.textContent = THEMES[theme] ?? THEMES.system;
  control.setAttribute("aria-label", `Theme: ${theme}. Change`);
  control.title = `Theme: ${theme}`;
}
