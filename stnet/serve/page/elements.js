// Building elements. Whatever the server sends becomes text nodes or numbers, never markup.

/** The element of the page that has this id. */
export const byId = (id) => document.getElementById(id);

/** An element: attributes, functions as listeners ("onclick"), numbers of `vars` as CSS variables; strings become text. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "vars") for (const key in value) element.style.setProperty(`--${key}`, value[key]);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A name from outside, kept from turning the text around it. */
export const nameOf = (text) => make("bdi", {}, text);

/** A number with what it is exactly, for whoever reads the page by a program. */
export const figure = (value, text) => make("data", { value }, text);

/** A drawing over the whole of its element, in units of 1 x 1. */
export function drawing(path) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const line = document.createElementNS(space, "path");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}
