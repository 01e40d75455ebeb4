"""``make demo``: from nothing to a report in three minutes – boot, trace, two scenarios, one drill, a table of costs.

Runs the same commands that a person would type, one after the other, and leaves the lab up.
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
#: Phases of the trace that are a cost of their own, as a person would name them.
PHASES = {
    "dns": "finding the address, from the root",
    "connect": "opening a TCP connection",
    "tls": "proving identity (TLS)",
    "first_byte": "the answer, over a fresh connection behind the edge",
}
#: Rows of an experiment that stand in the table; its report has all.
ROWS = 4


def main() -> int:
    """Run the demo; return the first exit code that is not 0 after all the rest has run (3 at once: no lab)."""
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
    console.print(f"Took {time.monotonic() - began:.0f} s. The lab is still up: http://127.0.0.1:8080/ shows it, `firstbyte down` ends it.")  # fmt: skip
    console.print(f"Reports: {(COPIED / 'index.html').resolve()}")
    return next((code for code in codes if code), 0)


def costs(trace: dict[str, Any], kept: list[archive.StoredRun]) -> Table:
    """Return the table of costs: what was measured in this run, beside what theory says."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for title in ("theory", "measured"):
        table.add_column(title, justify="right")
    table.add_column("", style="dim")
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
    """Return the latest run of *name*, unless it is one from before."""
    found = (each for each in archive.runs(COPIED) if each.name == name and not each.body.get("control"))
    latest = next(found, None)
    return latest if latest and latest.time >= since.strftime(archive.TIME) else None


def _firstbyte(*words: str, quiet: bool = False) -> int:
    out = subprocess.DEVNULL if quiet else None
    return subprocess.run([*_command(), *words], check=False, stdout=out, stderr=out).returncode


def _command() -> list[str]:
    return [sys.executable, "-m", "firstbyte"]


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:,.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
