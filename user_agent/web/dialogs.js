// Short questions to the user, in the browser's own dialog element: focus is kept inside and Escape closes it.

import { button, el } from "/web/dom.js";

/** The text that was given, or null. */
export const askText = (title, label, value, confirm) => {
  const field = el("input", { value, required: true, maxLength: 200 });
  return open(title, el("label", {}, label, field), confirm, () => field.value.trim());
};

/** Whether it was confirmed. */
export const askWhether = async (title, text, confirm) =>
  (await open(title, el("p", {}, text), confirm, () => true)) ?? false;

/** Whether it was confirmed, and the option beside it: {also}; null if not. Without an option there is none to choose. */
export const askWhetherAlso = (title, text, option, confirm) => {
  const box = el("input", { type: "checkbox" });
  const content = [el("p", {}, text), option && el("label", { className: "option" }, box, " ", option)];
  return open(title, content, confirm, () => ({ also: box.checked }));
};

function open(title, content, confirm, result) {
  return new Promise((resolve) => {
    let answer = null;
    const accept = (event) => {
      event.preventDefault();
      answer = result();
      dialog.close();
    };
    const actions = el("div", { className: "actions" },
      button("Cancel", () => dialog.close(), { className: "quiet" }),
      el("button", { type: "submit", className: "primary" }, confirm));
    const dialog = el("dialog", { "aria-label": title, on: { close: () => (dialog.remove(), resolve(answer)) } },
      el("form", { on: { submit: accept } }, el("h2", {}, title), content, actions));
    document.body.append(dialog);
    dialog.showModal();
  });
}
