// The offer of a first start: public models that read the user's own documents, fetched in one click.

import { get, patch, post } from "/web/api.js";
import { button, el } from "/web/dom.js";
import { bytes, sentence } from "/web/format.js";
import { reporting } from "/web/notices.js";

const POLL_MS = 500;

/** A section that fills itself: with a button for each pair that fits this machine, or the download that is running. */
export function offer() {
  const section = el("section", { className: "demo", "aria-label": "Read my own documents" });
  fill(section);
  return section;
}

const fill = reporting(async (section) => {
  const pairs = (await get("/v1/pairs")).filter((pair) => pair.is_offered && !pair.is_chosen);
  const running = pairs.find((pair) => pair.is_downloading);
  if (running) return follow(section, running.name);
  section.replaceChildren(
    el("p", { className: "actions" }, pairs.map((pair) => choice(section, pair))),
    el("p", { className: "remark" }, pairs.map(remark).join(" ")));
});

const size = (pair) => (pair.is_downloaded ? "" : ` (${bytes(pair.download_bytes)})`);
const label = (pair) =>
  pair.is_embedded ? `Read my own documents${size(pair)}` : `With better models${size(pair)}`;
const choice = (section, pair) =>
  button(label(pair), () => take(section, pair), { className: pair.is_embedded ? "primary" : "" });
const remark = (pair) => `${pair.name}: ${pair.purpose}; ${pair.licence}.`;

const take = reporting(async (section, pair) => {
  if (pair.is_downloaded) return use(section, pair.name);
  await post(`/v1/pairs/${pair.name}/download`);
  await follow(section, pair.name);
});

/** Show how far a download is, and take the pair up once it is done. */
async function follow(section, name) {
  const bar = el("progress", { "aria-label": `Download of ${name}` });
  const text = el("span", {});
  section.replaceChildren(el("p", { className: "remark" }, bar, " ", text));
  while (section.isConnected) {
    const pair = (await get("/v1/pairs")).find((one) => one.name === name);
    bar.max = pair.download_bytes;
    bar.value = pair.fetched_bytes;
    text.textContent = `${bytes(pair.fetched_bytes)} of ${bytes(pair.download_bytes)}`;
    if (pair.is_downloaded) return use(section, name);
    if (!pair.is_downloading) return fail(section, pair.error ?? "the download was stopped");
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

async function fail(section, why) {
  await fill(section);
  section.append(el("p", { className: "notice" }, sentence(why)));
}

/** Have the agent answer with the pair, and go to where folders are linked. */
async function use(section, name) {
  section.replaceChildren(el("p", { className: "remark" }, `Loading ${name}…`));
  const before = await countLinks();
  await patch("/v1/settings", { pair: name });
  const isUnlinked = (await countLinks()) < before; // the demo's sample notes
  dispatchEvent(new Event("settings-saved"));
  location.hash = `#/documents?focus=path&pair=${encodeURIComponent(name)}${isUnlinked ? "&unlinked" : ""}`;
}

const countLinks = async () => (await get("/v1/documents/links")).data.length;
