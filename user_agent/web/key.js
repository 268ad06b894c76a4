// The agent's key: it comes in the address's fragment, which a browser sends to nobody, and stays in this tab alone.

const NAME = "slingshot-key";

export const key = () => sessionStorage.getItem(NAME);
export const forgetKey = () => sessionStorage.removeItem(NAME);
export const keepKey = (value) => sessionStorage.setItem(NAME, value.trim());

/** Take the key out of the address bar, so that it is in no history and no bookmark. */
export function takeKeyFromAddress() {
  const match = location.hash.match(/^#key=(.+)$/);
  if (!match) return;
  keepKey(decodeURIComponent(match[1]));
  history.replaceState(null, "", location.pathname);
}
