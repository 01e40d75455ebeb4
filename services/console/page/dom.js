// Build elements without markup: data from hosts becomes text or an attribute, never HTML.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "rect", "line", "path", "polyline", "text", "circle", "g", "title", "tspan"]);

/** Return an element: h("p", {class: "quiet"}, "text", child, …). Attributes and children that are null are omitted. */
export function h(tag, attributes = {}, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Replace the children of *parent* by *children*, changing only what differs, so that focus, selection and scroll position stay. */
export function show(parent, ...children) {
  const wanted = h("div", {}, ...children).childNodes;
  morph(parent, [...wanted]);
}

function morph(parent, wanted) {
  const present = [...parent.childNodes];
  wanted.forEach((next, index) => {
    const node = present[index];
    if (!node) parent.append(next);
    else if (node.nodeType !== next.nodeType || node.nodeName !== next.nodeName) node.replaceWith(next);
    else if (node.nodeType === Node.TEXT_NODE) {
      if (node.data !== next.data) node.data = next.data;
    } else {
      for (const { name } of [...node.attributes]) {
        // Only the user opens and closes <details>.
        if (!next.hasAttribute(name) && name !== "open") node.removeAttribute(name);
      }
      for (const { name, value } of next.attributes) if (node.getAttribute(name) !== value) node.setAttribute(name, value);
      morph(node, [...next.childNodes]);
    }
  });
  for (const extra of present.slice(wanted.length)) extra.remove();
}

/** Format milliseconds. */
export function ms(value) {
  if (value === null || value === undefined) return "–";
  return `${value < 100 ? value.toFixed(1) : Math.round(value)} ms`;
}

/** Format a duration in seconds. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
}

/** Format seconds since the epoch as local time of day. */
export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString("en-GB", { hour12: false });
}

/** Format a count or rate. */
export function count(value) {
  if (value === null || value === undefined) return "–";
  return value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}

/** Format a count with its noun. */
export function plural(value, one, many) {
  return `${count(value)} ${value === 1 ? one : many}`;
}
