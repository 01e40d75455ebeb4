"""`pool`: what a pool of connections saves, and how long a request waits for one when the pool is small."""

import asyncio
import math
import random
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


#: Share of the holding time by which requests may begin late: a queue forgets what is much shorter than that.
MAX_LAG = 0.1
#: Holding times that are drawn, for the mean of an exponential pool's wait given its arrivals.
DRAWS = 60


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    rate: float = parameter(40.0, unit="requests/s", low=5, high=1000, help="Poisson, for each pool")
    hold_ms: int = parameter(100, unit="ms", low=5, high=2000, help="what the origin takes, on average")
    sizes: tuple[int, ...] = parameter((5, 6, 7), quick=(5, 6), unit="connections", low=1, high=64, help="of the pools")
    seconds: float = parameter(180.0, quick=32.0, unit="s", low=10, high=900, help="how long")
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
        #: Milliseconds by which requests began late, 99th percentile of the worst pool.
        self.lag_ms = math.inf

    def duration(self) -> float:
        """All pools at the same time."""
        return self.p.seconds + 3

    def predict(self) -> Mapping[str, Quantity]:
        """Return mean waits by the arrivals that there will be; `conclude` puts in how long requests really held."""
        said: dict[str, Quantity] = {}
        for kind in PATHS:
            model = self._expected(kind)
            waits = [self._wait(kind, model, size, self.p.hold_ms / 1000) for size in self.p.sizes]
            said |= {_row(kind, c): Quantity(w, "ms") for c, w in zip(self.p.sizes, waits, strict=True)}
            said[f"wait, {kind}, all sizes"] = Quantity(sum(waits) / len(waits), "ms")
        return said

    def _expected(self, kind: str) -> str:
        """Return the model that *kind* is held against: the control takes the other one."""
        return _other(kind) if self.negative else kind

    def _schedule(self, kind: str, size: int) -> Schedule:
        seed = self.seed * 1000 + size * 10 + list(PATHS).index(kind)
        return Schedule(constant(self.p.rate, self.p.seconds), "exponential", seed)

    def _wait(self, kind: str, model: str, size: int, hold: float) -> float:
        """Return the mean wait in ms of *kind*'s arrivals at so many connections, if they are held as *model* says."""
        rng = random.Random(size)
        arrivals = list(self._schedule(kind, size).times())
        early = sum(1 for at in arrivals if at <= WARM_UP)
        total, draws = 0.0, DRAWS if model == "exponential" else 1
        for _ in range(draws):
            holdings = (rng.expovariate(1 / hold) if model == "exponential" else hold for _ in arrivals)
            waits = list(theory.queueing.waits(arrivals, holdings, size))[early:]
            total += sum(waits) / max(1, len(waits))
        return total / draws * 1000

    async def measure(self, run: Run) -> None:
        """Take the network away, then ask through every pool at once."""
        await run.link("access", "near", rtt_ms=0)
        run.phase(f"{len(PATHS) * len(self.p.sizes)} pools, {self.p.rate:g} requests/s each")
        loads: dict[tuple[str, int], Load] = {}
        for kind, size in ((kind, size) for kind in PATHS for size in self.p.sizes):
            target = Target(HOST, 443, PATHS[kind].format(ms=self.p.hold_ms), TRUST)
            loads[kind, size] = Load(target, self._schedule(kind, size), kinds=("pooled",), pool=size)
            self.requests[kind, size] = loads[kind, size].requests
        await asyncio.gather(*(load.run() for load in loads.values()))
        self.lag_ms = max(load.lag().percentile(99) * 1000 for load in loads.values())

    def conclude(self, run: Run) -> None:
        """Hold each pool against both models."""
        failed = [r.error for requests in self.requests.values() for r in requests if r.error]
        run.gate("requests that failed", "0", f"{len(failed)} {failed[:1] or ''}".strip(), not failed)
        allowed = MAX_LAG * self.p.hold_ms
        run.gate("send lag p99", f"<= {allowed:g} ms, a tenth of the holding time", f"{self.lag_ms:.1f} ms", self.lag_ms <= allowed)  # fmt: skip
        dots: dict[str, list[tuple[float, float, float, float]]] = {kind: [] for kind in PATHS}
        holds: dict[str, list[float]] = {kind: [] for kind in PATHS}
        wrong = [kind for kind in PATHS if not self._conclude_kind(run, kind, dots[kind], holds[kind])]
        run.check("wait follows its own model", "nearer to it than to the other", f"not: {', '.join(wrong)}" if wrong else "nearer", not wrong)  # fmt: skip
        run.chart(self._picture(dots, holds))

    def _conclude_kind(
        self, run: Run, kind: str, dots: list[tuple[float, float, float, float]], holds: list[float]
    ) -> bool:
        """Add the rows of one kind; return whether its waits are nearer to its own model than to the other."""
        own, other, measured = [], [], []
        model = self._expected(kind)
        for size in self.p.sizes:
            counted = [r for r in self.requests[kind, size] if r.intended > WARM_UP and not r.error]
            waits = [(r.wait or 0.0) for r in counted]
            hold = sum(r.service_time - (r.wait or 0.0) for r in counted) / max(1, len(counted))
            holds.append(hold)
            own.append(self._wait(kind, model, size, hold))
            other.append(self._wait(kind, _other(model), size, hold))
            run.result.prediction[_row(kind, size)] = Quantity(own[-1], "ms")
            row = run.row(_row(kind, size), Estimate.mean(waits).scaled(1000))
            measured.append(row.measured.value)
            dots.append((size, row.measured.value, max(0.1, row.measured.low), row.measured.high))
            run.fact(f"held for, {kind}, {size} connections, ms", round(hold * 1000, 2))
            if not run.result.quick:
                run.check_near(row, self.p.tolerance)
        name = f"wait, {kind}, all sizes"
        mean = [sum(values) / len(values) for values in (own, other, measured)]
        run.result.prediction[name] = Quantity(mean[0], "ms")
        run.check_near(run.row(name, mean[2]), self.p.tolerance)
        return abs(math.log(mean[2] / mean[0])) < abs(math.log(mean[2] / mean[1]))

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
            "Curves: Erlang's and Crommelin's means; the table holds each dot against the queue of its own arrivals. Holding times are those measured.",
            name="pool",
        )


def _row(kind: str, size: int) -> str:
    return f"wait, {kind}, {size} connections"


def _other(kind: str) -> str:
    return "constant" if kind == "exponential" else "exponential"
