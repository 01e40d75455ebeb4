// The regions with their hosts, and lines for the links that requests take.

import { h, show, count } from "/dom.js";

// The links that are always drawn. Others are drawn while they are changed; the table of links has them all.
const DRAWN = [
  ["access", "isp"], ["access", "near"], ["access", "far"], ["isp", "near"], ["isp", "far"], ["near", "far"],
  ["isp", "root-a"], ["isp", "root-b"], ["isp", "registry"],
];
const STATUS = {
  ok: ["✓", "is healthy"],
  failing: ["!", "fails its health checks"],
  down: ["✕", "is down"],
  unseen: ["?", "cannot be seen: the router is down"],
  waiting: ["…", "has not answered yet"],
};

// Sockets in TIME_WAIT from which on a host shows their number; the TIME_WAIT panel has the others.
const MANY = 100;

let last = null;

/** Draw the map of a snapshot into *root*. */
export function drawMap(root, state) {
  last = state;
  const away = new Map();
  for (const link of state.links) {
    for (const [a, b] of link.both ? [[link.from, link.to], [link.to, link.from]] : [[link.from, link.to]]) {
      if (a === "access") away.set(b, link);
    }
  }
  show(
    root,
    h("svg", { class: "wires", "aria-hidden": "true", focusable: "false" }),
    state.regions.map((region) => card(region, away.get(region.name))),
    key(),
  );
  drawWires(root, state.links);
  if (!root.dataset.watched) {
    root.dataset.watched = "yes";
    new ResizeObserver(() => last && drawWires(root, last.links)).observe(root);
  }
}

function card(region, link) {
  const distance = link && region.name !== "exchange"
    ? h("span", { class: link.changed ? "distance changed" : "distance" }, `${link.rtt_ms} ms away`, link.changed ? ", changed" : null)
    : null;
  return h(
    "section",
    { class: `region area-${region.name}`, "data-region": region.name, "aria-label": `${region.name}: ${region.title}` },
    h("h3", {}, region.name, h("small", {}, region.title), distance),
    h("ul", {}, region.hosts.map(host)),
  );
}

function key() {
  const line = (kind) => h("svg", { "aria-hidden": "true" }, h("path", { class: `wire ${kind}`, d: "M 0 5 L 26 5" }));
  return h("ul", { class: "map-key" },
    h("li", {}, line(""), "link with its round-trip time"),
    h("li", {}, line("busy"), "carries packets"),
    h("li", {}, line("changed"), "changed from links.toml"),
    h("li", {}, h("b", {}, "tw"), "sockets in TIME_WAIT"),
    h("li", {}, h("b", {}, "/s"), "requests per second"));
}

function host(it) {
  const [mark, words] = STATUS[it.status] ?? ["?", it.status];
  const failing = Object.entries(it.checks).map(([name, check]) => `${check.ok ? "ok" : "failing"}: ${name} ${check.detail ?? ""}`);
  const about = [`${it.name} ${words}`, `${it.fqdn} · ${it.address} · ${it.role}`, it.error, ...failing].filter(Boolean).join("\n");
  const figures = [];
  if (it.requests_per_s !== null && it.requests_per_s >= 0.05) figures.push(`${count(it.requests_per_s)}/s`);
  if (it.tw >= MANY) figures.push(`${count(it.tw)} tw`);
  return h(
    "li",
    { class: `host ${it.status}`, title: about },
    h("span", { class: "mark", "aria-hidden": "true" }, mark),
    h("span", { class: "name" }, it.name, h("span", { class: "sr" }, ` ${words}`)),
    it.faults.length ? h("span", { class: "flag", title: it.faults.join(", ") }, "⚑", h("span", { class: "sr" }, " has an active fault")) : null,
    h("span", { class: "figures" }, figures.join(" · ")),
  );
}

function drawWires(root, links) {
  const svg = root.querySelector("svg.wires");
  const box = root.getBoundingClientRect();
  const cards = new Map([...root.querySelectorAll(".region")].map((node) => [node.dataset.region, node.getBoundingClientRect()]));
  // A single column has no room for lines: the cards show the distances.
  const narrow = new Set([...cards.values()].map((card) => Math.round(card.left))).size < 3;
  svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const wires = [];
  const labels = [];
  for (const pair of narrow ? [] : pairs(links)) {
    const [link] = pair;
    const from = cards.get(link.from);
    const to = cards.get(link.to);
    const changed = pair.some((it) => it.changed);
    if (!from || !to || !(drawn(link) || changed)) continue;
    const wire = route(link, from, to, box);
    const busy = pair.some((it) => it.packets_per_s >= 1);
    wires.push(h("path", { class: ["wire", changed ? "changed" : "", busy ? "busy" : ""].join(" ").trim(), d: wire.path }));
    labels.push(label(wire.middle, pair.flatMap((it) => words(it, cards)), changed));
  }
  show(svg, wires, labels);
}

function drawn(link) {
  return DRAWN.some(([a, b]) => (a === link.from && b === link.to) || (b === link.from && a === link.to));
}

/** Return the links grouped by pair of regions: one link if both directions are equal, else two. */
function pairs(links) {
  const found = new Map();
  for (const link of links) {
    const key = [link.from, link.to].sort().join(" ");
    found.set(key, [...(found.get(key) ?? []), link]);
  }
  return [...found.values()];
}

/** Return the label of a link, one line per property; arrows show the direction if the two differ. */
function words(link, cards) {
  const [from, to] = [cards.get(link.from), cards.get(link.to)];
  const across = Math.abs(to.left - from.left) > 40;
  const arrow = link.both ? "" : across ? (to.left > from.left ? "→ " : "← ") : to.top > from.top ? "↓ " : "↑ ";
  const lines = [`${link.rtt_ms} ms`];
  if (link.loss) lines.push(`${+(link.loss * 100).toFixed(2)} % lost`);
  if (link.rate_bps) lines.push(`${+(link.rate_bps / 1e6).toFixed(2)} Mbit/s`);
  return lines.map((line) => arrow + line);
}

function label([x, y], lines, changed) {
  const width = Math.max(...lines.map((line) => line.length)) * 6.8 + 10;
  const top = y - lines.length * 8;
  return h("g", {},
    h("rect", { class: "label-back", x: x - width / 2, y: top - 1, width, height: lines.length * 16 + 2, rx: 9 }),
    lines.map((line, index) => h("text", { class: changed ? "label changed" : "label", x, y: top + index * 16 + 12, "text-anchor": "middle" }, line)));
}

/** Return the path from border to border of two cards, and the position of its label. */
function route(link, from, to, box) {
  const middle = (card) => [card.left - box.left + card.width / 2, card.top - box.top + card.height / 2];
  const [[ax, ay], [bx, by]] = [middle(from), middle(to)];
  const pair = [link.from, link.to].sort().join("–");
  if (pair === "far–near") {
    // A straight line would run behind the clients, so it goes below them.
    const low = Math.max(from.bottom, to.bottom) - box.top + 26;
    const [left, right] = ax < bx ? [from, to] : [to, from];
    const start = [left.right - box.left - left.width / 4, left.bottom - box.top];
    const end = [right.left - box.left + right.width / 4, right.bottom - box.top];
    return { path: `M ${start} C ${start[0] + 60} ${low + 10}, ${end[0] - 60} ${low + 10}, ${end}`, middle: [(start[0] + end[0]) / 2, low] };
  }
  const start = border([ax, ay], [bx, by], from);
  const end = border([bx, by], [ax, ay], to);
  return { path: `M ${start} L ${end}`, middle: [(start[0] + end[0]) / 2, (start[1] + end[1]) / 2] };
}

/** Return where the line from the centre *a* of a card to *b* crosses its border. */
function border(a, b, card) {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const t = Math.min(card.width / 2 / Math.abs(dx || 1e-9), card.height / 2 / Math.abs(dy || 1e-9), 1);
  return [a[0] + dx * t, a[1] + dy * t];
}
