"""What we add to Locust's web page: three tabs, a page of our own, and links; asks the loaded hosts for their counters.

Locust has no hook for charts.  Its page does take tables: `extended_tabs` and `extended_tables` in its template,
`extended_stats` in the answer that it polls.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import gevent
from flask import request
from locust.runners import STATE_MISSING, MasterRunner

from hostfiles.layout import ADMIN_PORT, HOSTS_FILE
from swarm.board import COLUMNS, Board, column, short
from telemetry.call import CallError, call

#: Roles whose hosts are watched beside the workers.
WATCHED = ("edge", "edge-far")
#: Seconds between two looks at a host.
LOOK = 2.0
CONSOLE_PORT = 8080

TABLES: dict[str, list[tuple[str, str]]] = {
    "kernel": [("host", "Host"), *((column(key), title) for key, title in COLUMNS)],
    "phases": [("kind", "Connection"), ("phase", "Phase"), ("count", "Count"), ("p50", "p50 ms"), ("p90", "p90 ms"),
               ("p99", "p99 ms"), ("p999", "p99.9 ms"), ("max", "max ms")],
    "generator": [("worker", "Worker"), ("host", "Host"), ("cpu", "CPU of a core"), ("lag", "Lag p99 ms"), ("verdict", "Fit to measure?")],
}  # fmt: skip
TITLES = {"kernel": "Kernel", "phases": "Phases (exact)", "generator": "Generator"}
#: What each table says, on our page.
NOTES = {
    "kernel": "Since the test began; TIME-WAIT and sockets in use are levels. Workers in one container share its counters.",
    "phases": "Times of requests that went well, counted in whole microseconds, from all workers; latency is from the intended start.",
    "generator": "More than 80 % of a core, or sending 5 ms late at the 99th percentile: then Locust measures itself.",
}


def extend(web_ui: Any, board: Board) -> None:
    """Add tabs, page and links to *web_ui*."""
    web_ui.template_args["extended_tabs"] = [{"title": TITLES[key], "key": key} for key in TABLES]
    web_ui.template_args["extended_tables"] = [
        {"key": key, "structure": [{"key": k, "title": title} for k, title in columns]}
        for key, columns in TABLES.items()
    ]

    @web_ui.app.route("/firstbyte")
    def page() -> str:
        return PAGE

    @web_ui.app.route("/firstbyte/data")
    def data() -> dict[str, Any]:
        return {
            **rows(board),
            "starved": board.starved,
            "gone": [short(each) for each in board.gone],
            "lost": board.tally.lost,
            "ok": board.tally.ok.total(),
        }

    @web_ui.app.after_request
    def more(response: Any) -> Any:
        if request.path == "/stats/requests" and response.is_json:
            stats = [{"key": key, "data": each} for key, each in rows(board).items()]
            response.set_data(json.dumps({**response.get_json(), "extended_stats": stats}))
        elif request.path == "/" and response.mimetype == "text/html":
            response.set_data(response.get_data(as_text=True).replace("</body>", LINKS + "</body>"))
        return response


def rows(board: Board) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each table."""
    return {"kernel": board.kernel_rows(), "phases": board.phase_rows(), "generator": board.generator_rows()}


def watched(path: Path = HOSTS_FILE) -> dict[str, str]:
    """Return names and addresses of the hosts to watch; none outside the lab."""
    try:
        hosts = tomllib.loads(path.read_text(encoding="utf-8"))["host"]
    except OSError:
        return {}
    return {host["name"]: host["address"] for host in hosts if host["name"] in WATCHED}


def look(board: Board, runner: Any) -> None:
    """Look at workers and watched hosts again and again; never returns.  What is down is left out."""
    while True:
        if isinstance(runner, MasterRunner):
            board.keep({client.id for client in runner.clients.values() if client.state != STATE_MISSING})
        for name, address in watched().items():
            try:
                board.see(name, call(f"http://{address}:{ADMIN_PORT}", "GET", "/admin/kernel", timeout=1.0))
            except CallError:
                board.hosts.pop(name, None)
        gevent.sleep(LOOK)  # from look to look


_STYLE = "font:14px system-ui,sans-serif;position:fixed;right:1rem;bottom:.7rem;z-index:9;display:flex;gap:1rem;background:#12324a;padding:.35rem .8rem;border-radius:.4rem"
LINKS = f"""<style>#root{{padding-bottom:3.5rem}}</style><nav aria-label="firstbyte" style="{_STYLE}"><a style="color:#fff" href="/firstbyte">phases &amp; kernel counters</a>
<a style="color:#fff" href="#" onclick="this.href=location.protocol+'//'+location.hostname+':{CONSOLE_PORT}/'">the lab</a>
<a style="color:#fff" href="#" onclick="this.href=location.protocol+'//'+location.hostname+':{CONSOLE_PORT}/results/'">reports</a></nav>"""

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Load: phases and kernel counters</title><style>
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6570;--paper:#fff;--line:#dfe3e7;--bad:#b3261e;--link:#0068a8}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa5b1;--paper:#14171a;--line:#30363d;--bad:#ff8a80;--link:#5eb3f0}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:86rem;margin:0 auto;padding:1.2rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.08rem;margin:1.8rem 0 .2rem}p{margin:.2rem 0;color:var(--soft)}a{color:var(--link)}
nav{display:flex;gap:1.2rem;margin:.4rem 0}.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.93rem;min-width:40rem}
th{color:var(--soft);font-weight:500}td,th{text-align:right;padding:.25rem 0 .25rem 1.1rem;border-bottom:1px solid var(--line);white-space:nowrap;font-variant-numeric:tabular-nums}
td.word,th.word{text-align:left;padding-right:1.1rem}td:first-child,th:first-child{padding-left:0}#starved,#gone{color:var(--bad);font-weight:600}
</style><h1>Load: phases and kernel counters</h1>
<nav><a href="/">Locust</a><a id="lab" href="#">the lab</a><a id="reports" href="#">reports</a></nav>
<p id="counts" aria-live="polite">…</p><p id="starved" role="alert"></p><p id="gone" role="alert"></p><main></main><script>
const TABLES = @TABLES@, TITLES = @TITLES@, NOTES = @NOTES@, WORDS = new Set(["host", "kind", "phase", "worker", "verdict"]);
const console_ = location.protocol + "//" + location.hostname + ":@PORT@";
document.getElementById("lab").href = console_ + "/"; document.getElementById("reports").href = console_ + "/results/";
const make = (tag, text, parent) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; parent?.append(e); return e; };
const main = document.querySelector("main"), bodies = {};
for (const [key, columns] of Object.entries(TABLES)) {
  make("h2", TITLES[key], main); make("p", NOTES[key], main);
  const wide = make("div", undefined, main); wide.className = "wide";
  const table = make("table", undefined, wide), head = make("tr", undefined, make("thead", undefined, table));
  for (const [name, title] of columns) make("th", title, head).className = WORDS.has(name) ? "word" : "";
  bodies[key] = make("tbody", undefined, table);
}
async function refresh() {
  try {
    const data = await (await fetch("/firstbyte/data")).json();
    document.getElementById("counts").textContent = data.ok + " requests went well, " + data.lost + " were lost.";
    document.getElementById("starved").textContent = data.starved.length ? "Generator starved: " + data.starved.join(" \\u00b7 ") : "";
    document.getElementById("gone").textContent = data.gone.length ? "Workers that went away: " + data.gone.join(", ") + "; the others go on." : "";
    for (const [key, columns] of Object.entries(TABLES)) {
      bodies[key].replaceChildren();
      for (const row of data[key]) {
        const line = make("tr", undefined, bodies[key]);
        for (const [name] of columns) make("td", row[name], line).className = WORDS.has(name) ? "word" : "";
      }
    }
  } catch { document.getElementById("counts").textContent = "Locust does not answer."; }
  setTimeout(refresh, 2000);
}
refresh();
</script></html>"""
for _key, _value in {"TABLES": TABLES, "TITLES": TITLES, "NOTES": NOTES, "PORT": CONSOLE_PORT}.items():
    PAGE = PAGE.replace(f"@{_key}@", json.dumps(_value))
