// The list of conversations, the latest first.

import { get, patch, remove } from "/web/api.js";
import { askText, askWhether } from "/web/dialogs.js";
import { button, el } from "/web/dom.js";
import { reporting } from "/web/notices.js";
import { address, route } from "/web/router.js";

const place = document.getElementById("conversations");
const PAGE = 50;
let limit = PAGE;

export async function updateConversations() {
  const { data, has_more: hasMore } = await get(`/v1/conversations?limit=${limit}`);
  place.replaceChildren(
    data.length ? el("ul", {}, data.map(item)) : el("p", { className: "remark" }, "No chats yet."),
    hasMore ? button("Older chats", reporting(older), { className: "quiet" }) : "",
  );
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

async function forget({ id, title }) {
  if (!(await askWhether("Delete chat", `“${title}” and its answers are deleted from this device.`, "Delete"))) return;
  await remove(`/v1/conversations/${encodeURIComponent(id)}`);
  if (route().id === id) location.hash = address("chat");
  await updateConversations();
}
