// Which view is open, from the fragment: #/chat, #/chat/ID, #/documents, #/ledger?trace=ID, #/settings?focus=core.

export function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, id = ""] = path.split("/");
  return { page: page || "chat", id: decodeURIComponent(id), query: new URLSearchParams(query) };
}

export const address = (page, id) => `#/${page}${id ? `/${encodeURIComponent(id)}` : ""}`;

/** Change the address without opening anything: what is on the screen has got a name. */
export const rename = (page, id) => history.replaceState(null, "", address(page, id));
