// Settings as the agent describes them: label, help, limits, and which are fixed from outside.

import { get, patch } from "/web/api.js";
import { button, el } from "/web/dom.js";
import { forgetKey } from "/web/key.js";
import { clear, reporting } from "/web/notices.js";

const SOURCES = { keyring: "a key in the keyring", passphrase: "your passphrase", file: "a key in a file beside the settings" };
const OF_THE_LINE = ["core", "ca"];

export class Settings {
  title = "Settings";
  #fields = el("fieldset", { className: "fields" });
  #said = el("span", { role: "status", className: "remark" });
  #settings = {};
  #about = el("dl", { className: "about" });

  constructor(status) {
    const form = el("form", { className: "settings", on: { submit: (event) => this.#submit(event) } }, this.#fields,
      el("div", { className: "actions" }, el("button", { className: "primary" }, "Save"), this.#said));
    const forget = () => (forgetKey(), location.reload());
    this.element = el("div", { className: "page" }, form, this.#about,
      el("div", { className: "actions" }, button("Ask the core for its model", () => dispatchEvent(new Event("ask-core")), { className: "quiet" }),
        button("Forget the key in this tab", forget, { className: "quiet" })));
    this.showStatus(status);
  }

  /** What was known before may be of another core, so it is asked for anew whenever this is shown. */
  asksStatus = true;

  showStatus(status) {
    this.#about.replaceChildren(...about(status));
  }

  async load() {
    this.#show(await get("/v1/settings"));
  }

  #show(settings) {
    this.#settings = settings;
    const [everyday, advanced] = [false, true].map((isAdvanced) =>
      Object.entries(settings).filter(([, setting]) => setting.is_advanced === isAdvanced).map((one) => field(...one)));
    this.#fields.replaceChildren(...everyday, el("details", {}, el("summary", {}, "Advanced"), el("div", { className: "fields" }, ...advanced)));
  }

  // What is typed meanwhile would be lost, so nothing can be.
  async #submit(event) {
    event.preventDefault();
    const inputs = [...event.target.querySelectorAll("input:not(:disabled), select:not(:disabled)")];
    this.#fields.disabled = true;
    try {
      await this.#save(inputs);
    } finally {
      this.#fields.disabled = false;
    }
  }

  #save = reporting(async (inputs) => {
    this.#said.textContent = "";
    const changed = {};
    for (const input of inputs) {
      if (input.value === typed(this.#settings[input.name].value)) continue;
      changed[input.name] = meant(this.#settings[input.name], input.value);
    }
    await patch("/v1/settings", changed);
    clear();
    await this.load();
    this.#said.textContent = "Saved.";
    const asksCore = Object.keys(changed).some((name) => OF_THE_LINE.includes(name)); // who changes it wants to know
    dispatchEvent(new CustomEvent("settings-saved", { detail: { asksCore } }));
  });
}

function field(name, setting) {
  const hint = `help-${name}`;
  const shared = { id: name, name, disabled: setting.is_set_outside, "aria-describedby": hint };
  return el("div", { className: "field" }, el("label", { for: name }, setting.label),
    setting.choices.length ? choice(setting, shared) : entry(setting, shared),
    el("p", { id: hint, className: "remark" }, setting.help,
      setting.is_set_outside && el("strong", {}, " Set by an option or an environment variable; it cannot be changed here.")));
}

function choice({ value, choices }, shared) {
  const select = el("select", shared, choices.map((one) => el("option", { value: one }, one)));
  select.value = value;
  return select;
}

function entry({ value, default: byDefault, kind, words, minimum, maximum }, shared) {
  const isNumber = (kind === "int" || kind === "float") && !words.length;
  const limits = isNumber && { min: minimum ?? "", max: maximum ?? "", step: kind === "int" ? 1 : "any" };
  const list = `words-${shared.name}`;
  const input = el("input", {
    ...shared, value: typed(value), autocomplete: "off", spellcheck: false,
    placeholder: isOptional({ kind, default: byDefault }) ? "none" : typed(byDefault) || "default",
    type: isNumber ? "number" : "text", ...limits,
  });
  if (!words.length) return input;
  input.setAttribute("list", list);
  return [input, el("datalist", { id: list }, words.map((word) => el("option", { value: word })))];
}

/** A text that may be empty though its default is not. */
function isOptional({ kind, default: byDefault }) {
  return kind === "text" && typeof byDefault === "string" && byDefault !== "";
}

/** What a field holds, as the agent takes it: a word may stand where a number does. */
function meant(setting, entered) {
  if (entered === "") return emptied(setting);
  const isNumber = (setting.kind === "int" || setting.kind === "float") && !Number.isNaN(Number(entered));
  return isNumber ? Number(entered) : entered;
}

/** What an emptied field means: no text where that is a choice, else the default. */
function emptied(setting) {
  return isOptional(setting) ? "" : null;
}

/** A value as people type it, and as the agent reads it. */
function typed(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "all" : "none"; // of the documents
  if (!Array.isArray(value)) return String(value);
  if (value.every((one) => typeof one === "number")) return value.join(", ");
  return value.length === 1 ? value[0] : JSON.stringify(value);
}

function line({ address, is_encrypted: isEncrypted, is_local: isLocal }) {
  if (!address) return "";
  return isEncrypted ? "encrypted" : isLocal ? "on this machine" : "NOT encrypted: anyone on the network path can read questions and answers";
}

function about(status) {
  if (!status) return [];
  const { core, user_model: userModel, key_source: source, data_dir: folder, version } = status;
  const shown = {
    "Current core": core.error ?? ([core.address, core.model, line(core)].filter(Boolean).join(", ") || "none: only the private model answers"),
    "Private model": userModel,
    "Data folder": folder,
    "Encrypted with": SOURCES[source],
    Version: version,
  };
  return Object.entries(shown).filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
}
