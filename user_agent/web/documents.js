// Documents: link folders, upload files, see what became of each, look for a passage.

import { get, post, remove, withQuery } from "/web/api.js";
import { checkLine, isPending } from "/web/check.js";
import { askWhetherAlso } from "/web/dialogs.js";
import { button, el, table } from "/web/dom.js";
import { bytes, counted, sentence, when } from "/web/format.js";
import { Ingest } from "/web/ingest.js";
import { learns } from "/web/learns.js";
import { reporting } from "/web/notices.js";
import { route } from "/web/router.js";
import { searchForm } from "/web/search.js";

const PAGE = 100;
const LOOK_EVERY_MS = 1000;
const STATES = ["indexed", "failed", "skipped"];

export class Documents {
  title = "Documents";
  #links = el("ul", { className: "links" });
  #linked = ""; // what the list shows, so that it is made anew only if that changes
  #timer = null;
  #rows = el("tbody", {});
  #more = button("Show more", reporting(() => this.#page()), { hidden: true });
  #ingest = new Ingest(() => this.load());
  #path = el("input", { name: "path", placeholder: "/home/me/notes", required: true, spellcheck: false, autocomplete: "off" });
  #state = el("select", {}, el("option", { value: "" }, "All states"), STATES.map((state) => el("option", {}, state)));
  #name = el("input", { type: "search", placeholder: "Filter by name" });
  #shown = 0;
  #turn = 0;
  #warning = el("p", { className: "notice", hidden: true });

  /** `status` is the agent's. */
  constructor(status) {
    const link = reporting((event) => this.#link(event));
    this.#state.addEventListener("change", reporting(() => this.#reload()));
    this.#name.addEventListener("input", () => this.#filter());
    this.element = el("div", { className: "page" },
      el("p", { className: "lead" }, `The private model reads these. Their text is stored encrypted on this device. ${learns.documents}`),
      ready(route().query),
      this.#warning,
      el("form", { className: "line", on: { submit: link } },
        el("label", {}, "Folder on this machine", this.#path), el("button", { className: "primary" }, "Link folder")),
      dropZone(reporting((files) => this.#upload(files))), this.#ingest.element, this.#links,
      searchForm(),
      el("div", { className: "line filters" },
        el("label", {}, "State", this.#state), el("label", {}, "Name", this.#name)),
      table(["Document", "State", "#Passages", "#Size", "Changed", ""], this.#rows), this.#more);
    this.showStatus(status);
  }

  showStatus(status) {
    this.#warning.hidden = !status?.reader_warning;
    this.#warning.textContent = status?.reader_warning ? sentence(status.reader_warning) : "";
  }

  async load() {
    await this.#showLinks();
    await this.#reload();
  }

  /** Again and again while a link is being checked. */
  async #showLinks() {
    clearTimeout(this.#timer);
    const { data } = await get("/v1/documents/links");
    const linked = JSON.stringify(data);
    if (linked !== this.#linked) this.#links.replaceChildren(...data.map((link) => this.#entry(link)));
    this.#linked = linked;
    if (data.some(({ check }) => isPending(check))) this.#timer = setTimeout(reporting(() => this.#showLinks()), LOOK_EVERY_MS);
  }

  /** The view is on the screen: look how far the agent has read. */
  enter() {
    return this.#ingest.watch();
  }

  leave() {
    this.#ingest.leave();
    clearTimeout(this.#timer);
  }

  async #link(event) {
    event.preventDefault();
    await post("/v1/documents/links", { path: this.#path.value.trim() });
    this.#path.value = "";
    await this.load();
  }

  async #upload(files) {
    for (const file of files) {
      const form = new FormData();
      form.append("file", file);
      await post("/v1/documents", form);
    }
    await this.load();
  }

  #entry({ id, path, documents, failed, check }) {
    const unlink = async () => {
      const at = `/v1/documents/links/${encodeURIComponent(id)}`;
      const { answers } = await get(`${at}/answers`);
      const text = `The agent removes ${path} and its documents from its store. The files stay.`;
      const also = answers && `Also delete ${counted(answers, "saved answer")} for which something of it was read`;
      const given = await askWhetherAlso("Unlink folder", text, also, "Unlink");
      if (!given) return;
      await remove(withQuery(at, { answers: given.also || null }));
      await this.load();
    };
    return el("li", {}, el("span", { className: "path" }, path),
      el("span", { className: "remark" }, counted(documents, "document") + (failed ? `, ${failed} failed` : "")),
      button("Unlink", reporting(unlink), { className: "quiet", "aria-label": `Unlink ${path}` }),
      checkLine(check));
  }

  #reload() {
    return this.#page(0);
  }

  async #page(after = this.#shown) {
    const turn = ++this.#turn;
    const query = { state: this.#state.value, after, limit: PAGE };
    const { data, has_more: hasMore } = await get(withQuery("/v1/documents", query));
    if (turn !== this.#turn) return; // a later look shows the rows; both would show them twice
    if (!after) this.#rows.replaceChildren();
    this.#rows.append(...data.map((document) => this.#row(document)));
    this.#shown = after + data.length;
    this.#more.hidden = !hasMore;
    this.#filter();
  }

  #row({ id, name, path, link, state, reason, copy_of: first, passages, bytes: size, changed }) {
    const forget = async () => {
      await remove(`/v1/documents/${encodeURIComponent(id)}`);
      await this.load();
    };
    return el("tr", { data: { name: path.toLowerCase() } },
      el("th", { scope: "row", title: path }, name),
      el("td", {}, el("span", { className: `state ${state}` }, state), (reason || first) && el("small", { className: "reason" }, reason || `same file as ${first}; found once`)),
      el("td", { className: "number" }, passages.toLocaleString("en")),
      el("td", { className: "number" }, bytes(size)),
      el("td", {}, when(changed)),
      el("td", {}, link === null && button("Remove", reporting(forget), { className: "quiet", "aria-label": `Remove ${name}` })));
  }

  #filter() {
    const wanted = this.#name.value.trim().toLowerCase();
    for (const row of this.#rows.children) row.hidden = !row.dataset.name.includes(wanted);
  }
}

/** After a pair has been taken up: what comes next. */
function ready(query) {
  const pair = query.get("pair");
  const unlinked = query.has("unlinked") && " The sample notes of the invented town are no longer linked.";
  return pair && el("p", { className: "ready", role: "status" }, el("strong", {}, `${pair} is in use.`),
    ` Link a folder, then ask about it.`, unlinked);
}

function dropZone(onFiles) {
  const choose = el("input", { type: "file", multiple: true, on: { change: () => onFiles([...choose.files]) } });
  const zone = el("label", { className: "drop" }, "Drop files here, or ", el("span", { className: "link" }, "choose files"), choose);
  const hover = (isOver) => (event) => {
    event.preventDefault();
    zone.classList.toggle("over", isOver);
  };
  zone.addEventListener("dragover", hover(true));
  zone.addEventListener("dragleave", hover(false));
  zone.addEventListener("drop", (event) => {
    hover(false)(event);
    onFiles([...event.dataTransfer.files]);
  });
  return zone;
}
