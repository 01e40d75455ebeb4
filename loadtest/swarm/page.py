"""Extends Locust's web interface with three tabs, a separate page and links; also polls the hosts under load.

Locust has no hook for charts but supports additional tables: `extended_tabs` and `extended_tables` among the template
arguments, and `extended_stats` in the response that its page polls.
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

#: Names of the hosts under load whose kernel counters are shown.
WATCHED = ("edge", "edge-far")
#: Interval between two polls of a host, in seconds.
POLL = 2.0
CONSOLE_PORT = 8080

TABLES: dict[str, list[tuple[str, str]]] = {
    "kernel": [("host", "Host"), *((column(key), title) for key, title in COLUMNS)],
    "phases": [("kind", "Connection"), ("phase", "Phase"), ("count", "Count"), ("p50", "p50 ms"), ("p90", "p90 ms"),
               ("p99", "p99 ms"), ("p999", "p99.9 ms"), ("max", "max ms")],
    "generator": [("worker", "Worker"), ("host", "Host"), ("cpu", "CPU of a core"), ("lag", "Lag p99 ms"),
                  ("verdict", "Fit to measure?")],
}  # fmt: skip
TITLES = {"kernel": "Kernel", "phases": "Phases (exact)", "generator": "Generator"}
#: Explanation of each table, shown on the page ``/firstbyte``.
NOTES = {
    "kernel": "Growth since the test began; TIME-WAIT and sockets in use are current values. "
    "Workers in one container share their counters.",
    "phases": "Times of successful requests from all workers, in whole microseconds; "
    "latency counts from the intended start.",
    "generator": "A worker that uses more than 80 % of a core, or sends 5 ms late at the 99th percentile, "
    "measures itself instead of the server.",
}


def extend(web_ui: Any, board: Board) -> None:
    """Add tabs, the page ``/firstbyte`` and links to Locust's web interface.

    Args:
        web_ui: Locust's `WebUI`.
        board: source of the table rows.
    """
    web_ui.template_args["extended_tabs"] = [{"title": TITLES[key], "key": key} for key in TABLES]
    web_ui.template_args["extended_tables"] = [
        {"key": key, "structure": [{"key": k, "title": title} for k, title in columns]}
        for key, columns in TABLES.items()
    ]

    page, links = _template("page.html"), _template("links.html")

    @web_ui.app.route("/firstbyte")
    def own_page() -> str:
        return page

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
            response.set_data(response.get_data(as_text=True).replace("</body>", links + "</body>"))
        return response


def rows(board: Board) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each table, keyed by table key."""
    return {"kernel": board.kernel_rows(), "phases": board.phase_rows(), "generator": board.generator_rows()}


def watched(path: Path = HOSTS_FILE) -> dict[str, str]:
    """Return the addresses of the hosts to poll, keyed by name; empty outside the lab, where there is no hosts file."""
    try:
        hosts = tomllib.loads(path.read_text(encoding="utf-8"))["host"]
    except OSError:
        return {}
    return {host["name"]: host["address"] for host in hosts if host["name"] in WATCHED}


def poll(board: Board, runner: Any) -> None:
    """Poll the hosts under load and remove lost workers, every `POLL` seconds; never returns.

    Hosts that do not answer are removed from the board until they answer again.
    """
    while True:
        if isinstance(runner, MasterRunner):
            board.keep({client.id for client in runner.clients.values() if client.state != STATE_MISSING})
        for name, address in watched().items():
            try:
                board.see(name, call(f"http://{address}:{ADMIN_PORT}", "GET", "/admin/kernel", timeout=1.0))
            except CallError:
                board.hosts.pop(name, None)
        gevent.sleep(POLL)  # interval between two polls


def _template(name: str) -> str:
    """Return the content of an HTML file of this package, with its placeholders replaced."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    for key, value in {"TABLES": TABLES, "TITLES": TITLES, "NOTES": NOTES, "PORT": CONSOLE_PORT}.items():
        text = text.replace(f"@{key}@", json.dumps(value))
    return text
