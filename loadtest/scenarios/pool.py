"""`pool`: what a pool of connections saves, and how long a request waits for one when the pool is small."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass

import theory
from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Panel, Quantity, Run, parameter
from generator import Load, Request, Schedule, Target, constant
from scenarios.connection import TRUST

HOST = "www.example.com"
#: Seconds at the start that do not count: connections are opened, the queue fills.
WARM_UP = 2.0
#: How a request holds its connection, by the origin's path.
PATHS = {"exponential": "/delay/exp/{ms:g}", "constant": "/delay/{ms:g}"}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rate: float = parameter(60.0, unit="requests/s", low=5, high=1000, help="Poisson, for each pool")
    hold_ms: int = parameter(50, unit="ms", low=5, high=2000, help="what the origin takes, on average")
    sizes: tuple[int, ...] = parameter((4, 5, 6), quick=(4, 5), unit="connections", low=1, high=64, help="of the pools")
    seconds: float = parameter(150.0, quick=32.0, unit="s", low=10, high=900, help="how long")
    tolerance: float = parameter(0.15, quick=0.5, low=0.01, high=2, help="share of the predicted wait; a short run scatters more")  # fmt: skip


class Pool(Experiment[Parameters]):
    """Poisson requests over pools of a few connections, held for exponential and for constant times."""

    name = "pool"
    claim = "Waiting for a pooled connection follows the queue that matches how long requests hold it: M/M/c when exponentially, M/D/c when constantly, half as long."
    says = (
        "The seed: pools avoid the cold start of connections. More subtle: a pool is also a queue. In use are on average λ·(RTT + S) connections; "
        "a pool of just that many makes requests wait without bound, and each connection more halves the wait and then some."
    )
    source = (
        "A. K. Erlang 1917 (M/M/c); C. Crommelin 1932 and A. Janssen, J. van Leeuwaarden 2008 (M/D/c); J. Little 1961."
    )
    production = (
        "Size a pool by the wait you accept, not by the mean number in use: take λ·hold, round up, and add until the queue is short. "
        "Measure the wait for a connection as a phase of its own; inside a latency graph it looks like a slow server. "
        "Very uneven service times need more connections for the same rate."
    )
    settings = Parameters
    control = Control("each pool is held against the other model", ("wait follows its own model",))
    records = ("edge",)
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.requests: dict[tuple[str, int], list[Request]] = {}
        self.starved: list[str] = []

    def duration(self) -> float:
        """All pools at the same time."""
        return self.p.seconds + 3

    def predict(self) -> Mapping[str, Quantity]:
        """Return waits for the nominal holding time; what a request really held it is put in afterwards."""
        return {
            _row(kind, size): Quantity(self._model(kind, self.p.hold_ms / 1000, size) * 1000, "ms")
            for kind in PATHS
            for size in self.p.sizes
        }

    def _model(self, kind: str, hold: float, size: int) -> float:
        """Return the mean wait of the matching queue, of the other one in the control; infinite when overloaded."""
        exponential = (kind == "exponential") != self.negative
        model = theory.mm_c_wait if exponential else theory.md_c_wait
        return model(self.p.rate, hold, size) if self.p.rate * hold < size else math.inf

    async def measure(self, run: Run) -> None:
        """Take the network away, then ask through every pool at once."""
        await run.link("access", "near", rtt_ms=0)
        run.phase(f"{len(PATHS) * len(self.p.sizes)} pools, {self.p.rate:g} requests/s each")
        loads: dict[tuple[str, int], Load] = {}
        for i, (kind, size) in enumerate((k, c) for k in PATHS for c in self.p.sizes):
            target = Target(HOST, 443, PATHS[kind].format(ms=self.p.hold_ms), TRUST)
            schedule = Schedule(constant(self.p.rate, self.p.seconds), "exponential", run.result.seed * 100 + i)
            loads[kind, size] = Load(target, schedule, kinds=("pooled",), pool=size)
            self.requests[kind, size] = loads[kind, size].requests
        await asyncio.gather(*(load.run() for load in loads.values()))
        for load in loads.values():
            self.starved += [reason for reason in load.starvation().reasons if "CPU" in reason]

    def conclude(self, run: Run) -> None:
        """Hold each pool against both models."""
        failed = [r.error for requests in self.requests.values() for r in requests if r.error]
        run.gate("requests that failed", "0", f"{len(failed)} {failed[:1] or ''}".strip(), not failed)
        run.gate("generator", "not starved", "; ".join(self.starved) or "not starved", not self.starved)
        wrong: list[str] = []
        dots: dict[str, list[tuple[float, float, float, float]]] = {kind: [] for kind in PATHS}
        holds: dict[str, list[float]] = {kind: [] for kind in PATHS}
        for (kind, size), requests in self.requests.items():
            counted = [r for r in requests if r.intended > WARM_UP and not r.error]
            waits = [(r.wait or 0.0) for r in counted]
            hold = sum(r.service_time - (r.wait or 0.0) for r in counted) / max(1, len(counted))
            holds[kind].append(hold)
            name = _row(kind, size)
            run.result.prediction[name] = Quantity(self._model(kind, hold, size) * 1000, "ms")
            row = run.row(name, Estimate.mean(waits).scaled(1000))
            run.fact(f"held for, {kind}, {size} connections, ms", round(hold * 1000, 2))
            run.fact(f"in use, {kind}, {size} connections", round(self.p.rate * hold, 2))
            run.check_near(row, self.p.tolerance)
            dots[kind].append((size, row.measured.value, max(0.01, row.measured.low), row.measured.high))
            own, other = row.predicted or 0.0, _other(kind, self.p.rate, hold, size, negative=self.negative)
            if abs(math.log(max(row.measured.value, 1e-3) / own)) >= abs(math.log(max(row.measured.value, 1e-3) / other)):  # fmt: skip
                wrong.append(name)
        run.check("wait follows its own model", "nearer to it than to the other, in all", f"not: {', '.join(wrong)}" if wrong else "in all", not wrong)  # fmt: skip
        run.chart(self._picture(dots, holds))

    def _picture(
        self, dots: dict[str, list[tuple[float, float, float, float]]], holds: dict[str, list[float]]
    ) -> Chart:
        marks: list[Curve | Dots] = []
        for i, (kind, label) in enumerate((("exponential", "M/M/c"), ("constant", "M/D/c"))):
            hold = sum(holds[kind]) / max(1, len(holds[kind]))
            least = math.floor(self.p.rate * hold) + 1
            model = theory.mm_c_wait if kind == "exponential" else theory.md_c_wait
            curve = [(c, model(self.p.rate, hold, c) * 1000) for c in range(least, max(self.p.sizes) + 3)]
            marks += [Curve(f"{label}: theory, {kind} holding", curve, i), Dots(f"measured, {kind}", dots[kind], i)]
        return Chart(
            "Waiting for a connection, by the size of the pool",
            [Panel(marks, y="mean wait, ms", height=320, log=True, low=None)],
            x="connections in the pool",
            caption=f"{self.p.rate:g} requests per second arrive at random and hold a connection for {self.p.hold_ms} ms, exponentially or constantly. "
            "The holding times in the theory are those measured, the edge's own milliseconds included.",
            name="pool",
        )


def _row(kind: str, size: int) -> str:
    return f"wait, {kind}, {size} connections"


def _other(kind: str, rate: float, hold: float, size: int, *, negative: bool) -> float:
    model = theory.md_c_wait if (kind == "exponential") != negative else theory.mm_c_wait
    return model(rate, hold, size) * 1000 if rate * hold < size else math.inf
