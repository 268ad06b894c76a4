// The list of conversations, the latest first.

import { get, patch, remove, withQuery } from "/web/api.js";
import { askText, askWhether } from "/web/dialogs.js";
import { button, el } from "/web/dom.js";
import { reporting } from "/web/notices.js";
import { address, route } from "/web/router.js";

const place = document.getElementById("conversations");
const PAGE = 50;
let limit = PAGE;

const SEARCH_AFTER_MS = 200;
const field = el("input", { type: "search", placeholder: "Search chats", "aria-label": "Search chats" });
let timer = null;

/** Put the search above the list. */
export function startChatSearch() {
  place.before(el("div", { className: "chat-search" }, field));
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(reporting(updateConversations), SEARCH_AFTER_MS);
  });
}

export async function updateConversations() {
  const words = field.value.trim();
  if (words) return showFound(words);
  const { data, has_more: hasMore } = await get(`/v1/conversations?limit=${limit}`);
  place.replaceChildren(
    data.length ? el("ul", {}, data.map(item)) : el("p", { className: "remark" }, "No chats yet."),
    hasMore ? button("Older chats", reporting(older), { className: "quiet" }) : "",
  );
  markCurrent();
}

async function showFound(words) {
  const { data } = await get(withQuery("/v1/conversations/search", { query: words }));
  if (words !== field.value.trim()) return; // other words are looked for by now
  place.replaceChildren(data.length
    ? el("ul", { className: "found-chats" }, data.map(({ conversation: id, title, text }) => el("li", {},
      el("a", { href: address("chat", id), data: { id }, title }, title, el("small", {}, text)))))
    : el("p", { className: "remark", role: "status" }, "No chat has these words."));
  markCurrent();
}

function older() {
  limit += PAGE;
  return updateConversations();
}

/** Show which one is open. */
export function markCurrent() {
  const { page, id } = route();
  for (const link of place.querySelectorAll("a")) {
    if (page === "chat" && link.dataset.id === id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function item(conversation) {
  const { id, title } = conversation;
  return el("li", {},
    el("a", { href: address("chat", id), data: { id }, title }, title),
    button("✎", reporting(() => retitle(conversation)), { className: "quiet", "aria-label": `Rename ${title}` }),
    button("✕", reporting(() => forget(conversation)), { className: "quiet", "aria-label": `Delete ${title}` }));
}

async function retitle({ id, title }) {
  const given = await askText("Rename chat", "Title", title, "Rename");
  if (!given) return;
  await patch(`/v1/conversations/${encodeURIComponent(id)}`, { title: given });
  dispatchEvent(new CustomEvent("retitled", { detail: { id, title: given } }));
  await updateConversations();
}

export async function forget({ id, title }) {
  const text = `“${title}” is deleted from this device for good, with its answers and what they quote. The ledger keeps the messages that were sent.`;
  if (!(await askWhether("Delete chat", text, "Delete"))) return;
  await remove(`/v1/conversations/${encodeURIComponent(id)}`);
  if (route().id === id) location.hash = address("chat");
  await updateConversations();
}
