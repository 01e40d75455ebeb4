// A traced request as bars on a time axis, with predictions as outlines; cold and warm share one scale.

import { h, show, ms, clock } from "/dom.js";

const LABELS = { dns: "DNS", connect: "connect", tls: "TLS", request: "request", first_byte: "first byte", body: "body", close: "close" };

/** Draw the last trace, if there is one. */
export function drawTrace(root, about, held) {
  if (!held) return;
  const { trace, at } = held;
  about.textContent = `${trace.url} · ${clock(at)}`;
  const runs = ["cold", "warm"].filter((kind) => trace[kind]);
  const scale = round(Math.max(1, ...runs.flatMap((kind) => trace[kind].phases.flatMap(
    (phase) => [phase.start_ms + phase.measured_ms, phase.start_ms + (phase.predicted_ms ?? 0)]))));
  show(
    root,
    trace.summary ? h("p", { class: "sentence" }, sentence(trace.summary)) : null,
    h("div", { class: "runs" }, runs.map((kind) => run(kind, trace[kind], scale))),
    hops(trace.cold),
    h("p", { class: "key" },
      h("span", {}, h("svg", { width: 34, height: 12, "aria-hidden": "true" }, h("rect", { class: "phase dns", x: 0, y: 2, width: 26, height: 8, rx: 2 })), "measured"),
      h("span", {}, h("svg", { width: 34, height: 12, "aria-hidden": "true" }, h("rect", { class: "predicted", x: 1, y: 1, width: 26, height: 10, rx: 2 }), h("line", { class: "tick", x1: 27, x2: 27, y1: 0, y2: 12 })), "predicted from the links"),
      h("span", {}, "RT: round trips"),
      h("span", {}, h("span", { class: "odd" }, "12.3 ms"), " differs by more than 5 ms and 10 %")),
  );
}

function sentence(summary) {
  return typeof summary === "string" ? summary : String(summary.sentence ?? summary.text ?? "");
}

function run(kind, it, scale) {
  const first = it.ttfb_ms === undefined ? `${ms(it.total_ms)} in total` : `${ms(it.ttfb_ms)} to the first byte`;
  const predicted = it.ttfb_predicted_ms === null || it.ttfb_predicted_ms === undefined ? null : h("small", {}, `predicted ${ms(it.ttfb_predicted_ms)}`);
  return h(
    "table",
    { class: "fall" },
    h("caption", {}, h("b", {}, kind), ` ${first} `, predicted),
    h("thead", { class: "sr" }, h("tr", {}, ["phase", "when", "measured", "predicted"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, it.phases.map((phase) => row(phase, scale))),
    h("tfoot", { "aria-hidden": "true" }, h("tr", { class: "axis" }, h("td", {}), h("td", {}, axis(scale)), h("td", { colspan: 2 }))),
  );
}

/** Round *longest* up to an axis length, in ms, whose quarters are round numbers. */
function round(longest) {
  const power = 10 ** Math.floor(Math.log10(longest / 4));
  return 4 * power * [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((step) => 4 * power * step >= longest * 0.9999);
}

/** Label the quarters of the time axis, at the grid lines. */
function axis(scale) {
  return h("svg", { width: "100%", height: 15 }, [0, 0.25, 0.5, 0.75].map((part) =>
    h("text", { class: part % 0.5 ? "quarter" : null, x: `${part * 100}%`, y: 12 }, part ? String(+(part * scale).toPrecision(3)) : "0 ms")));
}

function row(phase, scale) {
  const part = (value) => `${Math.max(0, Math.min(100, (value / scale) * 100)).toFixed(2)}%`;
  const known = phase.predicted_ms !== null && phase.predicted_ms !== undefined;
  const residual = known ? phase.measured_ms - phase.predicted_ms : 0;
  const odd = Math.abs(residual) > 5 && Math.abs(residual) > 0.1 * phase.predicted_ms;
  return h(
    "tr",
    {},
    h("th", { scope: "row" }, LABELS[phase.name] ?? phase.name, phase.round_trips ? h("small", {}, ` ${phase.round_trips} RT`) : null),
    h("td", { class: "track" }, h("svg", { width: "100%", height: 18, "aria-hidden": "true" },
      h("rect", { class: `phase ${phase.name}`, x: part(phase.start_ms), y: 4, width: part(Math.max(phase.measured_ms, scale / 400)), height: 10, rx: 2 }),
      known && phase.predicted_ms > 0 ? h("rect", { class: "predicted", x: part(phase.start_ms), y: 1.5, width: part(phase.predicted_ms), height: 15, rx: 2 }) : null,
      known && phase.predicted_ms > 0 ? h("line", { class: "tick", x1: part(phase.start_ms + phase.predicted_ms), x2: part(phase.start_ms + phase.predicted_ms), y1: 0, y2: 18 }) : null)),
    h("td", { class: "number" }, ms(phase.measured_ms)),
    h("td", { class: odd ? "number odd" : "number quiet" }, known ? ms(phase.predicted_ms) : "", odd ? h("span", { class: "sr" }, " differs") : null),
  );
}

function hops(cold) {
  const detail = cold.phases.find((phase) => phase.name === "dns")?.detail;
  const list = Array.isArray(detail) ? detail : detail?.hops ?? [];
  if (!list.length) return null;
  return h(
    "details",
    { class: "hops", open: "" },
    h("summary", {}, `DNS: ${list.length} ${list.length === 1 ? "query" : "queries"} by the resolver`),
    h("ol", {}, list.map((hop) => h("li", {},
      h("span", { class: "hop-server" }, hop.server_name || hop.server, h("small", {}, ` ${hop.zone}`)),
      h("span", { class: "hop-question" }, `${hop.qname} ${hop.qtype}`),
      h("span", { class: "hop-answer" }, hop.cached ? "from the cache" : hop.kind || hop.rcode),
      h("span", { class: "number" }, ms(hop.rtt_ms))))),
  );
}
