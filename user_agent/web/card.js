// A small card beside something: on hover, on focus and on tap; Escape closes it.

import { el } from "/web/dom.js";

const GAP_PX = 8;
const card = el("div", { id: "card", className: "card", role: "tooltip", hidden: true });
let owner = null;
document.body.append(card);
new MutationObserver(() => owner?.isConnected || hide()).observe(document.body, { childList: true, subtree: true });
addEventListener("scroll", hide, { capture: true, passive: true });
addEventListener("resize", hide);
addEventListener("hashchange", hide);
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || card.hidden) return;
  hide();
  event.stopImmediatePropagation();
}, { capture: true });

/** Give an element a card, whose content is made when it is shown. */
export function withCard(element, content) {
  const open = () => show(element, content());
  element.setAttribute("aria-describedby", card.id);
  for (const event of ["pointerenter", "focus", "click"]) element.addEventListener(event, open);
  for (const event of ["pointerleave", "blur"]) element.addEventListener(event, hide);
  return element;
}

function show(element, content) {
  owner = element;
  card.replaceChildren(content);
  card.hidden = false;
  const at = element.getBoundingClientRect();
  const { width, height } = card.getBoundingClientRect();
  const fitsBelow = at.bottom + GAP_PX + height < innerHeight;
  card.style.left = `${Math.max(GAP_PX, Math.min(at.left, innerWidth - width - GAP_PX))}px`;
  card.style.top = `${fitsBelow ? at.bottom + GAP_PX : Math.max(GAP_PX, at.top - height - GAP_PX)}px`;
}

function hide() {
  owner = null;
  card.hidden = true;
}
