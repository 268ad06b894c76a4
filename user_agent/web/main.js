// The start of the page, and which view stands in it.

import { get, ready, withQuery } from "/web/api.js";
import { Chat } from "/web/chat.js";
import { markCurrent, startChatSearch, updateConversations } from "/web/conversations.js";
import { Documents } from "/web/documents.js";
import { entrance } from "/web/entrance.js";
import { forgetKey, key, takeKeyFromAddress } from "/web/key.js";
import { learnWhoLearns } from "/web/learns.js";
import { Ledger } from "/web/ledger.js";
import { clear, learnSettings, onWrongKey, report, reporting } from "/web/notices.js";
import { route } from "/web/router.js";
import { Settings } from "/web/settings.js";
import { startSidebar } from "/web/sidebar.js";
import { startTheme } from "/web/theme.js";
import { updateTotals } from "/web/totals.js";

const LOOK_EVERY_MS = 2000;
const main = document.getElementById("main");
const title = document.getElementById("title");
let status = null;
let view = null;
let statusAsked = 0;
let coreCode = null; // of the error that the demo's core had when it was looked at last
const chats = new Set();

/** The view of an address; a chat whose answer still runs is the same one as before. */
function viewOf({ page, id }) {
  if (page === "documents") return new Documents(status);
  if (page === "ledger") return new Ledger();
  if (page === "settings") return new Settings(status);
  for (const chat of chats) if (!chat.isRunning) chats.delete(chat);
  const chat = [...chats].find((running) => running.id === id) ?? new Chat(id, status, changed);
  chats.add(chat);
  return chat;
}

async function show() {
  if (!key()) return enter("");
  view?.leave?.();
  clear();
  const next = viewOf(route());
  const isKept = next.isRunning;
  view = next;
  main.replaceChildren(next.element);
  markPage();
  if (!status || next.asksStatus) updateStatus();
  if (!isKept) await next.load();
  markPage();
  await next.enter?.();
  place(next);
}

function place(shown) {
  const focus = route().query.get("focus");
  const field = focus && shown.element.querySelector(`[name="${CSS.escape(focus)}"]`);
  field?.closest("details")?.setAttribute("open", "");
  if (field) field.focus();
  else if (!focus) shown.focus?.();
}

function markPage() {
  title.textContent = view.title;
  document.title = `${view.title} · Slingshot`;
  for (const link of document.querySelectorAll("[data-page]")) {
    if (link.dataset.page === route().page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  markCurrent();
}

/** A chat has got a name, or another answer. */
const changed = reporting(async (chat) => {
  if (chat === view) markPage();
  await updateConversations();
});

function enter(why) {
  forgetKey();
  document.body.classList.add("locked");
  clear();
  main.replaceChildren(entrance(why, () => start()));
  main.querySelector("input").focus();
}

const start = reporting(async () => {
  if (!key()) return enter("");
  await updateConversations(); // which says whether the key is right
  document.body.classList.remove("locked");
  status = null;
  await learnWhoLearns(); // before anything can be asked
  await Promise.all([show(), updateTotals(), learnSettings()]);
});

/** Ask how the agent is, and tell the view once it is known. Nothing is sent to the core unless `asksCore`. */
const updateStatus = reporting(async (asksCore = false) => {
  const mine = (statusAsked += 1);
  const found = await get(withQuery("/v1/status", { ask_core: asksCore || null }));
  if (mine !== statusAsked) return; // a later one has been asked for, perhaps of another core
  status = found;
  view?.showStatus?.(status);
});

/** Look whether the demo's core still runs, or runs again; nothing is sent to it for that, and no other core is tried. */
async function watchCore() {
  const { is_demo: isDemo, is_starting: isStarting } = status?.core ?? {};
  if (key() && view?.showStatus && !document.hidden && (isDemo || isStarting)) {
    const code = (await ready())?.code ?? null;
    if (isStarting || code !== coreCode) await updateStatus();
    coreCode = code;
  }
  setTimeout(watchCore, LOOK_EVERY_MS);
}

const showing = reporting(show);
onWrongKey.call = enter;
takeKeyFromAddress();
startTheme(document.getElementById("theme"));
startSidebar();
startChatSearch();
addEventListener("hashchange", () => (location.hash.startsWith("#key=") ? (takeKeyFromAddress(), start()) : showing()));
addEventListener("agent-back", start);
addEventListener("settings-saved", reporting(async ({ detail }) => {
  await learnWhoLearns();
  await updateStatus(Boolean(detail?.asksCore));
}));
addEventListener("ask-core", () => updateStatus(true));
addEventListener("learns", () => view?.showLearns?.());
addEventListener("retitled", ({ detail }) => {
  if (!(view instanceof Chat) || view.id !== detail.id) return;
  view.title = detail.title;
  markPage();
});
addEventListener("unhandledrejection", ({ reason }) => reason?.status !== undefined && report(reason));
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog") && view instanceof Chat) view.stop();
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
start();
watchCore();
