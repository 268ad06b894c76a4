// What can be done with a whole chat: take it away as a file, or delete it.

import { download } from "/web/api.js";
import { forget } from "/web/conversations.js";
import { button, el } from "/web/dom.js";
import { reporting } from "/web/notices.js";

const SUFFIXES = { markdown: "md", json: "json" };

/** `chat` has an id by the time that one of them is used. */
export function chatTools(chat) {
  const as = (form, label) => button(label, reporting(() => save(chat, form)), { className: "quiet" });
  return el("div", { className: "actions chat-tools", role: "group", "aria-label": "For this chat" },
    as("markdown", "Export as Markdown"), as("json", "Export as JSON"),
    button("Delete chat", reporting(() => forget(chat)), { className: "quiet" }));
}

async function save({ id, title }, form) {
  const url = URL.createObjectURL(await download(`/v1/conversations/${encodeURIComponent(id)}/export?form=${form}`));
  const name = title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "chat";
  el("a", { href: url, download: `${name}.${SUFFIXES[form]}` }).click();
  URL.revokeObjectURL(url);
}
