// The page: shows what arrives from /events. It sends no other requests and changes nothing.

import { h, show, span, clock, count, plural } from "/dom.js";
import { drawMap } from "/map.js";
import { drawTrace } from "/waterfall.js";

const at = (id) => document.getElementById(id);
const MARKS = { bad: "✕", warn: "!", ok: "✓", wait: "…" };

function drawState(state) {
  at("verdict").className = `verdict ${state.verdict.level}`;
  show(at("verdict"), h("span", { "aria-hidden": "true" }, MARKS[state.verdict.level]), ` ${state.verdict.text}`);
  at("live").className = "live on";
  show(at("live"), h("span", { class: "pulse", "aria-hidden": "true" }), `live · ${clock(state.now)}`);
  document.title = state.verdict.level === "bad" ? "✕ firstbyte" : "firstbyte";
  show(at("alarms"), state.alarms.map(alarm));
  show(at("faults"), state.faults.map(fault));
  drawMap(at("map"), state);
  show(at("certificates"), certificates(state));
  drawSockets(state);
  show(at("cache"), cache(state.cache));
  show(at("pools"), pools(state.pools));
  show(at("links"), links(state.links));
  show(at("events"), events(state.events));
  show(at("reports"), reports(state.reports));
}

function alarm(it) {
  return h(
    "p",
    { class: `alarm ${it.level}` },
    h("span", { class: "mark", "aria-hidden": "true" }, MARKS[it.level]),
    h("span", {},
      h("b", {}, it.subject), ` ${it.what}`, it.since ? ` ${it.when} ${clock(it.since)}` : null, it.why ? `: ${it.why}` : null,
      it.means ? h("span", { class: "means" }, ` — ${it.means}`) : null),
  );
}

function fault(it) {
  const parameters = Object.entries(it.parameters).map(([name, value]) => `${name} ${value}`).join(", ");
  return h(
    "p",
    { class: "alarm fault" },
    h("span", { class: "mark", "aria-hidden": "true" }, "⚑"),
    h("span", {}, h("b", {}, `${it.host}: ${it.name}`), it.help ? ` — ${it.help.toLowerCase()}` : null,
      h("span", { class: "means" }, ` ${[parameters, it.hits === null ? "" : `hit ${count(it.hits)} times`].filter(Boolean).join(" · ")}`)),
  );
}

function certificates(state) {
  if (!state.certificates.length) return quiet("No certificates yet.");
  return h("ul", { class: "rows" }, state.certificates.map((it) => {
    const used = it.used ?? 1;
    const gone = it.seconds_left === null || it.seconds_left <= 0;
    const late = it.renew_at !== null && used > it.renew_at + 0.1;
    const level = gone ? "bad" : late || it.last_error ? "warn" : "ok";
    const renews = it.next_renewal ? it.next_renewal - state.now : null;
    const words = gone ? (it.seconds_left === null ? "none" : "expired") : `${span(it.seconds_left)} left`;
    const when = renews === null || gone ? "" : renews > 0 ? `renews in ${span(renews)}` : "renewal due";
    return h("li", { class: `cert ${level}` },
      h("span", { class: "who" }, h("b", {}, it.host), h("small", {}, [it.names.join(", "), it.key.replaceAll("-", "\u2011")].filter(Boolean).join(" · "))),
      h("svg", { class: "bar", width: "100%", height: 14, role: "img", "aria-label": `${Math.round(used * 100)} % of its lifetime over` },
        h("rect", { class: "rail", x: 0, y: 3, width: "100%", height: 8, rx: 4 }),
        h("rect", { class: `fill ${level}`, x: 0, y: 3, width: `${(used * 100).toFixed(1)}%`, height: 8, rx: 4 }),
        it.renew_at === null ? null : h("line", { class: "tick", x1: `${(it.renew_at * 100).toFixed(1)}%`, x2: `${(it.renew_at * 100).toFixed(1)}%`, y1: 0, y2: 14 })),
      h("span", { class: "left" }, level === "ok" ? null : `${MARKS[level]} `, words, h("small", {}, [when, it.renewals ? `renewed ${it.renewals}×` : "", it.failures ? `failed ${it.failures}×` : "", it.stale ? "last known" : ""].filter(Boolean).join(" · "))));
  }));
}

function drawSockets(state) {
  const hosts = state.regions.flatMap((region) => region.hosts);
  const total = hosts.reduce((sum, host) => sum + (host.tw ?? 0), 0);
  at("sockets-about").textContent = `${count(total)} sockets`;
  const some = hosts.filter((host) => host.tw || host.tw_history.some(Boolean)).sort((a, b) => (b.tw ?? 0) - (a.tw ?? 0)).slice(0, 8);
  if (!some.length) return show(at("sockets"), quiet("No sockets in TIME_WAIT on any host."));
  const top = Math.max(1, ...some.flatMap((host) => host.tw_history));
  show(at("sockets"), h("ul", { class: "rows" }, some.map((host) => {
    const points = host.tw_history.map((value, index) => `${index + 60 - host.tw_history.length},${(22 - (value / top) * 20).toFixed(1)}`);
    return h("li", { class: "tw" },
      h("b", {}, host.name),
      h("svg", { class: "spark", viewBox: "0 0 59 24", preserveAspectRatio: "none", "aria-hidden": "true" },
        h("polyline", { points: points.join(" ") })),
      h("span", { class: "number" }, count(host.tw)));
  })));
}

function cache(it) {
  if (!it) return quiet("No resolver.");
  const rate = it.hit_rate;
  return [
    rate === null
      ? h("p", {}, "No queries in the last minute.")
      : h("p", { class: "big" }, `${(rate * 100).toFixed(rate > 0.995 || rate === 0 ? 0 : 1)} %`, h("small", {}, "answered from the cache")),
    rate === null ? null : h("svg", { class: "bar", width: "100%", height: 10, "aria-hidden": "true" },
      h("rect", { class: "rail", x: 0, y: 1, width: "100%", height: 8, rx: 4 }),
      h("rect", { class: "fill ok", x: 0, y: 1, width: `${(rate * 100).toFixed(1)}%`, height: 8, rx: 4 })),
    h("p", { class: "quiet" }, `${rate === null ? "" : `${count(it.queries_per_s)} queries/s · `}${plural(it.size, "entry", "entries")} · ${plural(it.hits, "hit", "hits")} and ${plural(it.misses, "miss", "misses")} since it started`, it.stale ? " · last known" : null),
  ];
}

function table(heads, rows) {
  return h("div", { class: "scroll", tabindex: "0" }, h("table", { class: "figures" },
    h("thead", {}, h("tr", {}, heads.map((head, index) => h("th", { scope: "col", class: index ? "number" : "" }, head)))),
    h("tbody", {}, rows)));
}

function pools(list) {
  if (!list.length) return quiet("No connection pools yet.");
  const cell = (value) => h("td", { class: "number" }, count(value));
  return table(["from → to", "active", "idle", "opened", "reused", "failed"], list.map((it) => {
    const used = (it.opened ?? 0) + (it.reused ?? 0);
    return h("tr", {},
      h("th", { scope: "row", title: it.name }, `${it.host} → ${it.name.split(".")[0]}`, h("small", {}, [it.route, it.ejected ? "ejected" : "", it.stale ? "last known" : ""].filter(Boolean).join(" · "))),
      cell(it.active), cell(it.idle), cell(it.opened),
      h("td", { class: "number" }, count(it.reused), used ? h("small", {}, `${Math.round((100 * (it.reused ?? 0)) / used)} %`) : null),
      h("td", { class: it.failed ? "number odd" : "number" }, count(it.failed)));
  }));
}

// The other impairments of a link, shown only where they are in use.
const DAMAGE = {
  duplicate: "duplicated", reorder: "reordered", corrupt_bitflip: "with a bit flipped", corrupt_swap16: "with words swapped",
  corrupt_plusminus: "with words ±k", corrupt_random: "with a random burst",
};

function damage(it) {
  return Object.entries(DAMAGE).filter(([key]) => it[key] > 0).map(([key, words]) => `${percent(it[key])} ${words}`).join(", ");
}

function percent(part) {
  return `${+(part * 100).toFixed(3)} %`;
}

function links(list) {
  if (!list.length) return quiet("The router has not answered yet.");
  // Links of the exchange carry the console's own requests, and would always come first.
  const own = (it) => it.from === "exchange" || it.to === "exchange";
  const rank = (it) => (it.changed ? 0 : it.packets_per_s > 0 && !own(it) ? 1 : 2);
  const sorted = [...list].sort((a, b) => rank(a) - rank(b) || b.packets_per_s - a.packets_per_s);
  const row = (it) => h("tr", { class: it.changed ? "changed" : "" },
    h("th", { scope: "row" }, `${it.from} ${it.both ? "–" : "→"} ${it.to}`, it.changed ? [" ", h("small", { class: "tag" }, "changed")] : null,
      damage(it) ? [" ", h("small", {}, damage(it))] : null),
    h("td", { class: "number" }, `${it.rtt_ms} ms`, it.jitter_ms ? h("small", {}, `+${it.jitter_ms}`) : null),
    h("td", { class: "number" }, it.loss ? percent(it.loss) : "0"),
    h("td", { class: "number" }, it.rate_bps ? `${+(it.rate_bps / 1e6).toFixed(2)} Mbit/s` : "∞"),
    h("td", { class: "number" }, count(it.packets_per_s)),
    h("td", { class: it.dropped ? "number odd" : "number" }, count(it.dropped)));
  const stale = list.some((it) => it.stale) ? quiet("The router is down: these are its last known settings.") : null;
  const heads = ["between", "RTT", "loss", "rate", "packets/s", "dropped"];
  const busy = sorted.filter((it) => rank(it) < 2).slice(0, 10);
  const rest = sorted.filter((it) => !busy.includes(it));
  return [
    stale,
    busy.length ? table(heads, busy.map(row)) : quiet("Only the console’s own requests pass between regions now."),
    rest.length ? h("details", {}, h("summary", {}, `${rest.length} more links`), table(heads, rest.map(row))) : null,
  ];
}

function events(list) {
  if (!list.length) return quiet("No events since the console started.");
  return h("ol", { class: "events" }, list.slice(0, 10).map((it) => h("li", { class: it.level },
    h("time", { datetime: new Date(it.at * 1000).toISOString() }, clock(it.at)), h("span", {}, h("b", {}, it.host), ` ${it.text}`))));
}

function reports(list) {
  const marks = { pass: "✓", fail: "✕", invalid: "?", skipped: "–" };
  return h("ul", {}, list.map((it) => h("li", {},
    h("a", { href: it.href }, it.name), h("small", {}, ` ${marks[it.verdict] ?? ""} ${it.verdict ?? "no verdict"} · ${it.time}`))));
}

function quiet(text) {
  return h("p", { class: "quiet" }, text);
}

// Milliseconds until we reconnect if the browser does not: it gives up if the response is not an event stream.
const AGAIN = 3000;

let lostAt = null;

function listen() {
  const source = new EventSource("/events");
  source.addEventListener("state", (event) => {
    lostAt = null;
    document.body.classList.remove("lost");
    drawState(JSON.parse(event.data));
  });
  source.addEventListener("trace", (event) => drawTrace(at("trace"), at("trace-about"), JSON.parse(event.data)));
  source.addEventListener("error", () => {
    lostAt ??= Date.now() / 1000;
    document.body.classList.add("lost");
    at("live").className = "live off";
    show(at("live"), "✕ disconnected, retrying");
    at("verdict").className = "verdict bad";
    show(at("verdict"), `The console has not answered since ${clock(lostAt)}; everything below is older.`);
    document.title = "✕ firstbyte";
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN);
  });
}

listen();
