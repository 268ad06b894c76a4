// Elements made from data. Text goes in as text nodes alone, so nothing from a document or an answer is ever markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: properties whose names hold a dash, and `role`, are attributes; `on` holds listeners, `data` the dataset. */
export function el(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An SVG element; all of its properties are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function button(label, onClick, properties = {}) {
  return el("button", { type: "button", ...properties, on: { click: onClick, ...properties.on } }, label);
}

/** A table in a box that scrolls when it is too wide; the names of columns of numbers begin with "#". */
export function table(columns, body, properties = {}) {
  const head = columns.map((name) =>
    el("th", { scope: "col", className: name.startsWith("#") ? "number" : "" }, name.replace(/^#/, "")));
  return el("div", { className: "scroll" }, el("table", properties, el("thead", {}, el("tr", {}, head)), body));
}

/** Whether what moves by itself should hold still. */
export const wantsStillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
