"""``make demo``: start the lab, trace a request, run two scenarios and a drill, and print a table of costs.

The demo takes about three minutes, runs the same commands that a user would type, and leaves the lab running.
"""

import datetime as dt
import json
import subprocess
import sys
import time
from typing import Any

from rich.table import Table

from experiments import archive
from firstbyte import terminal
from firstbyte.experiment import COPIED
from waterfall import render

URL = "https://www.example.com/"
EXPERIMENTS = (("run", "handshake"), ("run", "time-wait"), ("drill", "renewal-under-load"))
#: Trace phases in the table of costs, with the label of each.
PHASES = {
    "dns": "finding the address, from the root",
    "connect": "opening a TCP connection",
    "tls": "proving identity (TLS)",
    "first_byte": "the answer, over a fresh connection behind the edge",
}
#: Maximum rows per experiment in the table of costs; the experiment's report has all rows.
ROWS = 4


def main() -> int:
    """Run the demo; return the first non-zero exit code, or 0.

    The demo stops if the lab does not start or the trace fails; after a failed experiment it continues.
    """
    terminal.prepare()
    console = terminal.console()
    began, today = time.monotonic(), dt.datetime.now(dt.UTC)

    def step(text: str) -> None:
        console.rule(f"[bold]{text}[/]  [dim]{time.monotonic() - began:.0f} s[/]", align="left", style="dim")

    if _firstbyte("status", quiet=True):
        step("firstbyte up")
        if code := _firstbyte("up"):
            return code
    step(f"firstbyte trace {URL}")
    traced = subprocess.run([*_command(), "trace", URL, "--json"], check=False, capture_output=True, text=True)
    if traced.returncode:
        print(traced.stderr, end="", file=sys.stderr)
        return traced.returncode
    trace: dict[str, Any] = json.loads(traced.stdout)
    console.print(render(trace, console.width))
    codes = []
    for verb, name in EXPERIMENTS:
        step(f"firstbyte {verb} {name} --quick")
        codes.append(_firstbyte(verb, name, "--quick"))
    step("what it costs")
    console.print(costs(trace, [latest for _, name in EXPERIMENTS if (latest := _latest(name, today))]))
    console.print(f"Took {time.monotonic() - began:.0f} s. The lab is still up; `firstbyte down` removes it.")
    console.print("  watch it    http://127.0.0.1:8080/")
    console.print(f"  reports     {(COPIED / 'index.html').resolve()}", soft_wrap=True)
    console.print("  go on       firstbyte run --list; firstbyte drill --list; firstbyte link access:near --rtt 80ms")
    return next((code for code in codes if code), 0)


def costs(trace: dict[str, Any], kept: list[archive.StoredRun]) -> Table:
    """Return the table of costs: values measured in this demo next to predicted values."""
    table = terminal.table("", "theory", "measured", " ", numbers=("theory", "measured"))
    for phase in trace["cold"]["phases"]:
        if what := PHASES.get(phase["name"]):
            table.add_row(what, _figure(phase["predicted_ms"]), _figure(phase["measured_ms"]), "ms")
    saved = [trace["cold"][key] - trace["warm"][key] for key in ("ttfb_predicted_ms", "ttfb_ms")]
    table.add_row("what warm caches and pools save", _figure(saved[0]), _figure(saved[1]), "ms")
    for each in kept:
        body = each.body
        table.add_section()
        table.add_row(f"[bold]{each.name}[/]", "", each.verdict, "")
        predicted = [name for name in body["measurement"] if body["prediction"].get(name) is not None]
        for name in predicted[:ROWS]:
            unit = body.get("unit", {}).get(name, "")
            table.add_row(f"  {name}", _figure(body["prediction"][name]), _figure(body["measurement"][name]), unit)
    return table


def _latest(name: str, since: dt.datetime) -> archive.StoredRun | None:
    """Return the latest run of the experiment *name* that began after *since*, ignoring control runs."""
    first = since.strftime(archive.TIME)
    runs = archive.runs(COPIED)  # sorted from newest to oldest
    return next(
        (each for each in runs if each.name == name and each.time >= first and not each.body.get("control")), None
    )


def _firstbyte(*words: str, quiet: bool = False) -> int:
    out = subprocess.DEVNULL if quiet else None
    return subprocess.run([*_command(), *words], check=False, stdout=out, stderr=out).returncode


def _command() -> list[str]:
    return [sys.executable, "-m", "firstbyte"]


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:,.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
