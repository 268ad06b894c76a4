// Settings: what the agent can be told, what each does, and what is fixed from outside.

import { get, patch } from "/web/api.js";
import { button, el } from "/web/dom.js";
import { sentence } from "/web/format.js";
import { forgetKey } from "/web/key.js";
import { clear, reporting } from "/web/notices.js";

const NAMES = {
  core: "Core",
  ca: "Certificate",
  model: "Model",
  lambda_user: "λ, the private model’s weight",
  alpha: "α, how much documents are stressed",
  steps: "Timesteps of a block",
  max_tokens: "Longest answer",
};
const SOURCES = { keyring: "a key in the keyring", passphrase: "your passphrase", file: "a key in a file beside the settings" };
const NUMBERS = {
  lambda_user: { min: 0, max: 1, step: 0.05 },
  alpha: { min: 0, max: 100, step: 0.1 },
  steps: { min: 1, max: 1000, step: 1 },
  max_tokens: { min: 1, step: 1 },
};

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
      el("div", { className: "actions" }, button("Forget the key in this tab", forget, { className: "quiet" })));
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
    this.#fields.replaceChildren(...Object.entries(settings).map(([name, setting]) => field(name, setting)));
  }

  // What is typed meanwhile would be lost, so nothing can be.
  async #submit(event) {
    event.preventDefault();
    const inputs = [...event.target.querySelectorAll("input:not(:disabled)")];
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
      const given = input.value === "" ? null : input.type === "number" ? Number(input.value) : input.value;
      if (given !== (this.#settings[input.name].value ?? null)) changed[input.name] = given;
    }
    await patch("/v1/settings", changed);
    clear();
    await this.load();
    this.#said.textContent = "Saved.";
    dispatchEvent(new Event("settings-saved"));
  });
}

function field(name, { value, default: byDefault, help, is_set_outside: isOutside }) {
  const hint = `help-${name}`;
  const input = el("input", {
    id: name, name, value: value ?? "", disabled: isOutside, autocomplete: "off", spellcheck: false,
    placeholder: byDefault === null || byDefault === "" ? "default" : String(byDefault),
    type: NUMBERS[name] ? "number" : "text", ...NUMBERS[name], "aria-describedby": hint,
  });
  return el("div", { className: "field" }, el("label", { for: name }, NAMES[name] ?? name.replaceAll("_", " ")), input,
    el("p", { id: hint, className: "remark" }, sentence(help), isOutside && el("strong", {}, " Set by an option or a variable; it cannot be changed here.")));
}

function line({ address, is_encrypted: isEncrypted, is_local: isLocal }) {
  if (!address) return "";
  return isEncrypted ? "encrypted" : isLocal ? "on this machine" : "NOT encrypted: whoever is on the way can read along";
}

function about(status) {
  if (!status) return [];
  const { core, user_model: userModel, key_source: source, data_dir: folder, version } = status;
  const shown = {
    "Core now": core.error ?? ([core.address, core.model, line(core)].filter(Boolean).join(", ") || "none: the private model answers alone"),
    "Private model": userModel,
    "Kept in": folder,
    "Encrypted with": SOURCES[source],
    Version: version,
  };
  return Object.entries(shown).filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
}
