"""``firstbyte plan --simulate``: compare simulated clients with closed forms and with measurements of the lab."""

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from experiments import Chart, Curve, Dots, Estimate, Panel, archive
from firstbyte import terminal
from firstbyte.experiment import COPIED
from hostfiles.layout import RESULTS
from planner.plan import Plan
from planner.quantities import duration, significant
from reports.drawing import svg
from runtime import InsideLab, UsageError
from simulation import caches, storms
from theory import ttl as theory

#: Times of the table's rows, as fractions of the TTL.
STEPS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
#: Number of equal intervals per TTL; the lab's measurement is drawn as one dot per interval.
DOTS = 8


@dataclass(frozen=True, slots=True)
class Measured:
    """Answers that the scenario `ttl` measured after it changed the record."""

    run: str
    #: Pairs of a time (fraction of the TTL) and the share of old answers relative to the share at the change.
    dots: list[tuple[float, Estimate]]


@dataclass(frozen=True, slots=True)
class Simulated:
    """Results of simulating a plan's clients and certificates."""

    fading: caches.Fading
    storm: storms.Storm
    measured: Measured | None
    clients: int
    rate: float
    ttl: float
    seconds: float

    def rows(self) -> list[tuple[float, float, float]]:
        """Return rows of (seconds since the change, fraction by the closed form, simulated fraction)."""
        times = [step * self.ttl for step in STEPS]
        return [(at, theory.stale_share(self.rate, self.ttl, at), self.fading.at(at)) for at in times]

    def as_json(self) -> dict[str, Any]:
        """Return the simulation as a JSON object."""
        rows = [dict(zip(("seconds", "closed_form", "simulated"), row, strict=True)) for row in self.rows()]
        storm = {"peak_orders_per_s": self.storm.peak, "expired": self.storm.expired}
        return {"clients": self.clients, "old_record": rows, "storm": storm, "took_s": round(self.seconds, 2)}


def simulate(plan: Plan) -> Simulated:
    """Simulate the clients and certificates of *plan*.

    Raises:
        UsageError: an input is a range, or the TTL is 0.
    """
    wide = [name for name, value in plan.inputs.items() if len(value.ends) > 1]
    if wide:
        raise UsageError(f"expected single values with --simulate, got a range for {', '.join(wide)}")
    inputs = plan.low
    if not inputs.ttl:
        raise UsageError("expected a TTL above 0 with --simulate, got 0: no cache holds an old record")
    began = time.monotonic()
    rate, clients = inputs.rps / inputs.clients, int(inputs.clients)
    fading = caches.fading(clients, rate, inputs.ttl)
    cycle = inputs.lifetime * inputs.renew_at
    storm = storms.storm(int(inputs.certificates), inputs.lifetime, cycle, inputs.ca_outage, inputs.spread)
    took = time.monotonic() - began
    return Simulated(fading, storm, _measured(), clients, rate, inputs.ttl, took)


def show(found: Simulated) -> None:
    """Print the simulation as tables."""
    console = terminal.console()
    console.print(f"[bold]simulated[/]: {found.clients:,} clients, each with a cache; {found.seconds:.1f} s")
    table = terminal.table(
        "caches with the old record after", "closed form", "simulated", numbers=("closed form", "simulated")
    )
    for at, expected, got in found.rows():
        table.add_row(duration(at), f"{100 * expected:.2f} %", f"{100 * got:.2f} %")
    console.print(table)
    peak = f"{significant(found.storm.peak)} orders/s"
    console.print(
        f"after the CA's outage: at most {peak}; {100 * found.storm.expired:.3g} % of the certificates expire"
    )
    if found.measured is None:
        console.print("no run of `firstbyte run ttl` in results: the picture shows no dots of the lab", style="dim")
    else:
        console.print(escape(f"dots of the lab: {found.measured.run}, scaled to this TTL"), style="dim")


def draw(found: Simulated, path: Path) -> None:
    """Write an SVG of the fraction of caches with the old record over time to *path*.

    Raises:
        UsageError: the file cannot be written.
    """
    occupied = theory.hit_rate(found.rate, found.ttl)
    closed = [(x * found.ttl, 100 * theory.stale_share(found.rate, found.ttl, x * found.ttl)) for x in (0.0, 1.0)]
    simulated = [(at, 100 * share) for at, share in zip(found.fading.times, found.fading.share, strict=True)]
    marks: list[Curve | Dots] = [
        Curve("closed form: occ · (1 − t/T)", closed, 0),
        Curve(f"{found.clients:,} simulated clients", simulated, 1, dashed=True),
    ]
    if found.measured is not None:
        scaled = [(x * found.ttl, each.scaled(100 * occupied)) for x, each in found.measured.dots]
        marks.append(Dots("the lab, scaled to this TTL", [(at, e.value, e.low, e.high) for at, e in scaled], 2))
    chart = Chart(
        "Caches that still hold the old record after a change",
        [Panel(marks, y="share of caches, %", height=300, high=max(1.0, 110 * occupied))],
        x="seconds since the change",
        caption="The line is theory; the dashed line follows every client. Dots are the scenario ttl's answers, with "
        "95 % intervals; their time is divided by the scenario's TTL and their share by its value at the change.",
        low=0.0,
        high=found.ttl,
    )
    try:
        path.write_text(svg(chart, standalone=True), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from None


def _measured() -> Measured | None:
    """Return the measurement of the latest passed run of the scenario `ttl`, or None if there is none."""
    folder = RESULTS if InsideLab.is_here() else COPIED
    for run in sorted(archive.runs(folder), key=lambda each: each.time, reverse=True):
        if run.name == "ttl" and run.verdict == "pass" and not run.control:
            try:
                answers = json.loads((run.folder / "raw.json").read_text())["answers after the change"]
                rate = float(run.body["parameters"]["rate"])
                return Measured(os.fspath(run.folder), _dots(answers, rate))
            except (OSError, ValueError, KeyError, TypeError, IndexError):  # ignore runs stored by another version
                continue
    return None


def _dots(answers: dict[str, list[tuple[float, bool]]], rate: float) -> list[tuple[float, Estimate]]:
    """Return the share of old answers over time for the longest TTL; keys of *answers* have the form ``T = 4 s``."""
    by_ttl = {float(name.split()[2]): values for name, values in answers.items()}
    ttl = max(by_ttl)
    occupied = theory.hit_rate(rate, ttl)
    bins: dict[int, list[bool]] = {}
    for at, old in by_ttl[ttl]:
        if at < ttl:
            bins.setdefault(math.floor(DOTS * at / ttl), []).append(old)
    return [
        ((i + 0.5) / DOTS, Estimate.share(sum(each), len(each)).scaled(1 / occupied))
        for i, each in sorted(bins.items())
    ]
