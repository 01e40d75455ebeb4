// Regions with their hosts, and the links that requests take drawn between them.

import { h, show, count } from "/dom.js";

// The ways that requests of the lab take. Others are drawn while they are changed; the table below has all.
const DRAWN = [
  ["access", "isp"], ["access", "near"], ["access", "far"], ["isp", "near"], ["isp", "far"], ["near", "far"],
  ["isp", "root-a"], ["isp", "root-b"], ["isp", "registry"],
];
const STATUS = {
  ok: ["✓", "is well"],
  failing: ["!", "says that it is not well"],
  down: ["✕", "is down"],
  unseen: ["?", "can not be seen: the router is down"],
  waiting: ["…", "has not answered yet"],
};

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

function host(it) {
  const [mark, words] = STATUS[it.status] ?? ["?", it.status];
  const failing = Object.entries(it.checks).map(([name, check]) => `${check.ok ? "ok" : "failing"}: ${name} ${check.detail ?? ""}`);
  const about = [`${it.name} ${words}`, `${it.fqdn} · ${it.address} · ${it.role}`, it.error, ...failing].filter(Boolean).join("\n");
  const figures = [];
  if (it.requests_per_s !== null && it.requests_per_s >= 0.05) figures.push(`${count(it.requests_per_s)}/s`);
  if (it.tw) figures.push(`${count(it.tw)} tw`);
  return h(
    "li",
    { class: `host ${it.status}`, title: about },
    h("span", { class: "mark", "aria-hidden": "true" }, mark),
    h("span", { class: "name" }, it.name, h("span", { class: "sr" }, ` ${words}`)),
    it.faults.length ? h("span", { class: "flag", title: it.faults.join(", ") }, "⚑ fault") : null,
    h("span", { class: "figures" }, figures.join(" · ")),
  );
}

function drawWires(root, links) {
  const svg = root.querySelector("svg.wires");
  const box = root.getBoundingClientRect();
  const cards = new Map([...root.querySelectorAll(".region")].map((node) => [node.dataset.region, node.getBoundingClientRect()]));
  // One column has no room between cards: distances stand in the cards, the rest in the table.
  const narrow = new Set([...cards.values()].map((card) => Math.round(card.left))).size < 3;
  svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const wires = [];
  const labels = [];
  if (!narrow) {
    for (const link of links) {
      const drawn = DRAWN.some(([a, b]) => (a === link.from && b === link.to) || (b === link.from && a === link.to));
      const from = cards.get(link.from);
      const to = cards.get(link.to);
      if (!from || !to || !(drawn || link.changed)) continue;
      const wire = route(link, from, to, box);
      const kind = ["wire", link.changed ? "changed" : "", link.packets_per_s >= 1 ? "busy" : ""].join(" ").trim();
      wires.push(h("path", { class: kind, d: wire.path }));
      const words = [`${link.rtt_ms} ms`];
      if (!link.both) words[0] = `${link.from} → ${link.to} ${words[0]}`;
      if (link.loss) words.push(`${+(link.loss * 100).toFixed(2)} % lost`);
      if (link.rate_bps) words.push(`${+(link.rate_bps / 1e6).toFixed(2)} Mbit/s`);
      if (link.changed) words.push("changed");
      const text = words.join(" · ");
      const [x, y] = free(wire.middle, text.length, labels.map((label) => label.spot));
      labels.push({
        spot: { x, y, length: text.length },
        nodes: [
          h("rect", { class: "label-back", x: x - text.length * 3.4 - 5, y: y - 9, width: text.length * 6.8 + 10, height: 18, rx: 9 }),
          h("text", { class: link.changed ? "label changed" : "label", x, y: y + 4, "text-anchor": "middle" }, text),
        ],
      });
    }
  }
  show(svg, wires, labels.map((label) => label.nodes));
}

/** Return the path between two cards, from border to border, and where its label goes. */
function route(link, from, to, box) {
  const middle = (card) => [card.left - box.left + card.width / 2, card.top - box.top + card.height / 2];
  const [[ax, ay], [bx, by]] = [middle(from), middle(to)];
  const pair = [link.from, link.to].sort().join("–");
  if (pair === "access–far") {
    // Straight on it would run behind the provider: it goes below.
    const low = Math.max(from.bottom, to.bottom) - box.top + 34;
    const start = [ax + from.width / 4, from.bottom - box.top];
    const end = [bx - to.width / 4, to.bottom - box.top];
    const flip = ax > bx;
    const [left, right] = flip ? [end, start] : [start, end];
    return { path: `M ${left} C ${left[0] + 40} ${low}, ${right[0] - 40} ${low}, ${right}`, middle: [(left[0] * 2.6 + right[0]) / 3.6, low - 14] };
  }
  const start = border([ax, ay], [bx, by], from);
  const end = border([bx, by], [ax, ay], to);
  return { path: `M ${start} L ${end}`, middle: [(start[0] + end[0]) / 2, (start[1] + end[1]) / 2] };
}

/** Return where the line from the middle *a* of a card towards *b* leaves it. */
function border(a, b, card) {
  const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
  const t = Math.min(card.width / 2 / Math.abs(dx || 1e-9), card.height / 2 / Math.abs(dy || 1e-9), 1);
  return [a[0] + dx * t, a[1] + dy * t];
}

/** Move a label up or down until it covers no other. */
function free([x, y], length, taken) {
  let at = y;
  for (const step of [0, 20, -20, 40, -40]) {
    at = y + step;
    if (!taken.some((spot) => Math.abs(spot.y - at) < 19 && Math.abs(spot.x - x) < (spot.length + length) * 3.6 + 8)) break;
  }
  return [x, at];
}
