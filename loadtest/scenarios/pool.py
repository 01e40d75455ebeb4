"""Scenario `pool`: measures the latency that a connection pool saves, and how long requests wait for a small pool."""

import asyncio
import math
import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from statistics import fmean, median

from experiments import Chart, Control, Curve, Dots, Estimate, Experiment, Lesson, Panel, Quantity, Run, parameter
from experiments.recorders import HERE
from generator import Kind, Load, Request, Schedule, Target, constant
from hostfiles.layout import TRUST_ANCHOR
from theory import handshake, pool, queueing

HOST = "www.example.com"
#: Distributions of the connection holding time, and the queueing model for each.
KINDS = {"exponential": "M/M/c", "constant": "M/D/c"}
#: Seconds at the start that are excluded, because connections are opened and the queue fills.
WARM_UP = 2.0
#: Parameters of the cold-start measurement: seconds per part, requests per second, and the origin's processing time in
#: ms.
COLD_SECONDS, COLD_RATE, COLD_MS = 3.0, 10.0, 10
#: Pause in seconds before and after opened connections are counted; counters are sampled ten times a second.
PAUSE = 0.25
#: Largest start delay of requests, and largest time added by edge and origin, as a share of the holding time.  Within
#: this limit, delays hardly change the queue, and constant holding times stay nearly constant.
MAX_LAG = 0.1
#: Largest accepted deviation in the long-run check, in standard errors; 1 % of correct runs exceed it.
STANDARD_ERRORS = 2.6
#: Largest tolerance of the long-run check, as a share of the mean.  The models differ by a factor of two, so a wider
#: tolerance would accept both.
WIDEST = 0.5
#: Largest deviation of the saved round trips from a whole number; the handshake also takes CPU time.
OFF_ROUND_TRIPS = 0.3
#: Largest relative error of the connections in use (edge, origin and links add time), and of the number of opened
#: connections (other programs open a few).
TOLERANCE_IN_USE, TOLERANCE_OPENS = 0.1, 0.1
#: Largest utilisation with a long-run prediction.  Above it, even a run of several hours is too short.
BUSIEST = 0.95


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    rate: float = parameter(
        40.0, unit="requests/s", low=5, high=1000, help="rate of Poisson requests through each pool"
    )
    hold_ms: int = parameter(
        100, unit="ms", low=5, high=2000, help="mean time for which a request holds a connection: the origin delays it"
    )
    sizes: tuple[int, ...] = parameter(
        (5, 6, 7), quick=(5, 6), unit="connections", low=1, high=64, help="sizes of the pools"
    )
    seconds: float = parameter(300.0, quick=24.0, unit="s", low=10, high=900, help="how long requests are sent")
    rtt_ms: float = parameter(
        50.0, unit="ms", low=5, high=400,
        help="round-trip time of the link while fresh and pooled requests are compared",
    )  # fmt: skip
    tolerance: float = parameter(
        0.15, low=0.01, high=2, help="largest difference between measured and predicted wait, as a share of it"
    )


@dataclass(slots=True)
class Arm:
    """One pool: schedule and holding times, drawn in advance, and the measured requests."""

    kind: str
    size: int
    schedule: Schedule
    #: Delay that each request asks the origin to add, in whole milliseconds, because the origin accepts only integers.
    asked: Sequence[int]
    requests: list[Request] = field(default_factory=list)

    @property
    def on_top(self) -> list[float]:
        """Seconds for which each request held its connection beyond the requested delay: network, edge and origin."""
        pairs = zip(self.requests, self.asked, strict=False)
        return [max(0.0, request.service_time - (request.wait or 0.0) - ms / 1000) for request, ms in pairs]

    @property
    def counted(self) -> list[tuple[Request, int]]:
        """Successful requests after the warm-up, each with its requested delay in milliseconds."""
        pairs = zip(self.requests, self.asked, strict=False)
        return [(request, ms) for request, ms in pairs if request.intended > WARM_UP and not request.error]


class Pool(Experiment[Parameters]):
    """Sends Poisson requests through small connection pools, with exponential and constant holding times."""

    name = "pool"
    claim = (
        "The wait for a pooled connection follows the queue that matches the holding times: M/M/c for exponential "
        "ones, M/D/c for constant ones, where it is half as long."
    )
    says = (
        "The textbook says that connection pools avoid the cold start of new connections. In practice a pool is also "
        "a queue. On average λ · (RTT + S) connections are in use, with λ requests per second and a service time of "
        "S. A pool of exactly this size makes requests wait without bound, and each additional connection more than "
        "halves the wait."
    )
    source = (
        "A. K. Erlang 1917 (M/M/c); C. Crommelin 1932 and A. Janssen, J. van Leeuwaarden 2008 (M/D/c); "
        "J. Kiefer, J. Wolfowitz 1955 (one run); J. Little 1961."
    )
    production = (
        "Size a pool by the wait you accept, not by the mean number of connections in use: multiply the rate by the "
        "holding time, round up, and add connections until the queue is short. Measure the wait for a connection as "
        "a phase of its own; hidden in the latency it looks like a slow server. Very uneven service times need more "
        "connections for the same rate. Do not size a pool from a few minutes of measurements: at a utilisation of "
        "80 %, the mean waits of two runs of five minutes easily differ by a tenth through chance alone."
    )
    settings = Parameters
    control = Control("each pool is compared with the other model", ("wait follows its own model",))
    records = ("edge",)
    paths = ("edge",)
    lessons = (
        Lesson(
            "Requests take 160 ms on a new connection. A pooled one saves the handshakes of TCP and TLS 1.3, 50 "
            "ms each. How long does a pooled request take?",
            "a pooled request", "ms", 15,
        ),
        Lesson(
            "How many round trips does a pool save per request?",
            "round trips that a pool saves", "", 0.2,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Requests over a long link, on fresh and on pooled connections.
        self.cold: dict[str, list[Request]] = {}
        #: Start and end of each part of the measurement, in seconds since the run began.
        self.spans: dict[str, tuple[float, float]] = {}

    def duration(self) -> float:
        """Return the expected duration in seconds: requests on fresh and on pooled connections, and in all pools."""
        return 2 * (COLD_SECONDS + 2 * PAUSE) + self.p.seconds + 3

    @cached_property
    def arms(self) -> list[Arm]:
        """Return all pools, with arrival and holding times from the run's random number generator."""
        made = []
        for number, kind in enumerate(KINDS):
            for size in self.p.sizes:
                seed = self.seed * 1000 + size * 10 + number
                schedule = Schedule(constant(self.p.rate, self.p.seconds), "exponential", seed)
                made.append(Arm(kind, size, schedule, self._draw(kind, schedule)))
        return made

    def _draw(self, kind: str, schedule: Schedule) -> list[int]:
        rng = random.Random(f"holding:{schedule.seed}")
        mean = self.p.hold_ms
        return [round(rng.expovariate(1 / mean)) if kind == "exponential" else mean for _ in schedule.times()]

    # --- prediction -----------------------------------------------------------------------------------------------

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the waits for the sampled arrivals and holding times; `conclude` adds edge and network time."""
        p, requests = self.p, sum(len(arm.asked) for arm in self.arms)
        in_use = Quantity(pool.connections_in_use(p.rate, 0.0, p.hold_ms), "connections")
        predicted = {
            "a fresh request": Quantity(pool.fresh_request_ms(p.rtt_ms, COLD_MS), "ms"),
            "a pooled request": Quantity(pool.pooled_request_ms(p.rtt_ms, COLD_MS), "ms"),
            "round trips that a pool saves": Quantity(handshake.tls_round_trips("TLSv1.3") + 1),
            "connections opened per fresh request": Quantity(1.0),
            "connections opened per pooled request": Quantity(sum(arm.size for arm in self.arms) / requests),
            **{f"in use, {kind}": in_use for kind in KINDS},
        }
        for arm in self.arms:
            model = self._expected(arm.kind)
            predicted[_row(arm)] = Quantity(self._wait(arm, model), "ms")
            if p.rate * p.hold_ms / 1000 <= BUSIEST * arm.size:
                predicted[_long_run(arm)] = Quantity(_mean_wait(model, p.rate, p.hold_ms / 1000, arm.size), "ms")
        return predicted

    def _expected(self, kind: str) -> str:
        """Return the distribution that predictions assume, which is the wrong one in the negative control."""
        return _other(kind) if self.negative else kind

    def _wait(self, arm: Arm, kind: str) -> float:
        """Return the mean wait in ms for an arm's arrivals, with holding times of *kind* plus the measured overhead."""
        arrivals = list(arm.schedule.times())
        asked = arm.asked if kind == arm.kind else self._draw(kind, arm.schedule)
        holdings = (ms / 1000 + more for ms, more in zip_longest(asked, arm.on_top, fillvalue=0.0))
        found = queueing.waits(arrivals, holdings, arm.size)
        return fmean(wait for at, wait in zip(arrivals, found, strict=True) if at > WARM_UP) * 1000

    # --- measurement ----------------------------------------------------------------------------------------------

    async def measure(self, run: Run) -> None:
        """Compare fresh and pooled requests over a long link, then run all pools at the same time over a short link."""
        undo = await run.lab.link("access", "near", rtt_ms=self.p.rtt_ms)
        kinds: tuple[Kind, ...] = ("fresh", "pooled")
        for kind in kinds:
            run.phase(f"{kind} requests over a round trip of {self.p.rtt_ms:g} ms")
            load = Load(self._target(COLD_MS), Schedule(constant(COLD_RATE, COLD_SECONDS)), kinds=(kind,))
            self.cold[kind] = load.requests
            await self._drive(run, f"{kind} requests", load)
        await run.lab.undo(undo)
        await run.lab.link("access", "near", rtt_ms=0)
        run.phase(f"{len(self.arms)} pools, {self.p.rate:g} requests/s each")
        loads = []
        for arm in self.arms:
            paths = (f"/delay/{ms}" for ms in arm.asked)
            load = Load(self._target(self.p.hold_ms), arm.schedule, kinds=("pooled",), pool=arm.size, paths=paths)
            arm.requests = load.requests
            loads.append(load)
        await self._drive(run, "pools", *loads)

    def _target(self, ms: int) -> Target:
        return Target(HOST, 443, f"/delay/{ms}", TRUST_ANCHOR)

    async def _drive(self, run: Run, name: str, *loads: Load) -> None:
        """Run *loads* concurrently; pause before and after, so that counters can be attributed to these loads."""
        await asyncio.sleep(PAUSE)  # this pause separates the connections counted for these loads from others
        began = run.now()
        await asyncio.gather(*(load.run() for load in loads))
        self.spans[name] = (began, run.now())
        await asyncio.sleep(PAUSE)  # this pause separates the connections counted for these loads from others

    # --- conclusion -----------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Check the latency saved by a pool, then compare the waits in each pool with both models."""
        every = [r for requests in (*self.cold.values(), *(arm.requests for arm in self.arms)) for r in requests]
        failed = [request.error for request in every if request.error]
        run.findings.gate("requests that failed", "0", f"{len(failed)} {failed[:1] or ''}".strip(), not failed)
        allowed = MAX_LAG * self.p.hold_ms
        late = max(_late(arm) for arm in self.arms)
        run.findings.gate(
            "send lag p99", f"<= {allowed:g} ms, a tenth of the holding time", f"{late:.1f} ms", late <= allowed
        )
        more = max(fmean(arm.on_top) for arm in self.arms) * 1000
        run.findings.gate(
            "holding time beyond what was asked for", f"<= {allowed:g} ms on average", f"{more:.1f} ms", more <= allowed
        )
        self._conclude_cold_start(run)
        self._conclude_in_use(run)
        dots: dict[str, list[tuple[float, float, float, float]]] = {kind: [] for kind in KINDS}
        wrong = [kind for kind in KINDS if not self._conclude_kind(run, kind, dots[kind])]
        got = f"not: {', '.join(wrong)}" if wrong else "closer"
        run.findings.check("wait follows its own model", "closer to it than to the other", got, not wrong)
        run.findings.chart(self._picture(run, dots))

    def _conclude_cold_start(self, run: Run) -> None:
        """Check the round trips for opening a connection, and the number of connections opened by the kernel."""
        took = {kind: Estimate.of(r.service_time * 1000 for r in requests) for kind, requests in self.cold.items()}
        for kind, estimate in took.items():
            run.findings.row(f"a {kind} request", estimate)
        saved = (took["fresh"].value - took["pooled"].value) / self.p.rtt_ms
        run.findings.check_near(
            run.findings.row("round trips that a pool saves", saved), OFF_ROUND_TRIPS, absolute=True
        )
        counts = {"fresh requests": len(self.cold["fresh"]), "pools": sum(len(arm.requests) for arm in self.arms)}
        for name, kind in (("fresh requests", "fresh"), ("pools", "pooled")):
            opens = run.recorders.series[HERE].rise("Tcp.ActiveOpens", *self.spans[name])
            row = run.findings.row(f"connections opened per {kind} request", opens / max(1, counts[name]))
            run.findings.check_near(row, TOLERANCE_OPENS)

    def _conclude_in_use(self, run: Run) -> None:
        """Check Little's law: connections in use = rate · holding time, for any pool size and distribution.

        The time that edge and origin add is measured with the pooled requests over the long link.
        """
        more = median(r.service_time for r in self.cold["pooled"]) * 1000 - self.p.rtt_ms - COLD_MS
        for kind in KINDS:
            own = [arm for arm in self.arms if arm.kind == kind]
            asked = [ms for arm in own for _, ms in arm.counted]
            rate = len(asked) / len(own) / (self.p.seconds - WARM_UP)
            expected = pool.connections_in_use(rate, 0.0, fmean(asked) + more)
            run.result.prediction[f"in use, {kind}"] = Quantity(expected, "connections")
            means = [_in_use(arm.requests, WARM_UP, self.p.seconds) for arm in own]
            run.findings.check_near(run.findings.row(f"in use, {kind}", fmean(means)), TOLERANCE_IN_USE)

    def _conclude_kind(self, run: Run, kind: str, dots: list[tuple[float, float, float, float]]) -> bool:
        """Add the rows of one distribution; return whether the waits are closer to its model than to the other."""
        own, other, measured = [], [], []
        model = self._expected(kind)
        for arm in (arm for arm in self.arms if arm.kind == kind):
            counted = arm.counted
            waits = [request.wait or 0.0 for request, _ in counted]
            held = [request.service_time - (request.wait or 0.0) for request, _ in counted]
            own.append(self._wait(arm, model))
            other.append(self._wait(arm, _other(model)))
            run.result.prediction[_row(arm)] = Quantity(own[-1], "ms")
            row = run.findings.row(_row(arm), Estimate.mean(waits).scaled(1000))
            run.findings.check_near(row, self.p.tolerance)
            measured.append(row.measured.value)
            dots.append((arm.size, row.measured.value, max(0.1, row.measured.low), row.measured.high))
            self._conclude_long_run(run, arm, row.measured, fmean(held))
        return abs(math.log(fmean(measured) / fmean(own))) < abs(math.log(fmean(measured) / fmean(other)))

    def _conclude_long_run(self, run: Run, arm: Arm, measured: Estimate, hold: float) -> None:
        """If the run is long enough, compare an arm with the model's long-run mean at the measured load."""
        kind, seconds = self._expected(arm.kind), self.p.seconds - WARM_UP
        rate = len(arm.counted) / seconds
        if rate * hold > BUSIEST * arm.size:
            run.result.prediction.pop(_long_run(arm), None)
            run.findings.leave_out(
                f"{_long_run(arm)}: {rate * hold:.2f} of {arm.size} in use, too many for a mean within minutes"
            )
            return
        run.result.prediction[_long_run(arm)] = Quantity(_mean_wait(kind, rate, hold, arm.size), "ms")
        scatter = queueing.scatter_of_a_run(rate, hold, arm.size, seconds, constant=arm.kind == "constant")
        run.findings.fact(
            f"standard deviation of the mean wait of such a run, {arm.kind}, {arm.size} connections", round(scatter, 3)
        )
        row = run.findings.row(_long_run(arm), measured)
        within = max(self.p.tolerance, STANDARD_ERRORS * scatter)
        if within <= WIDEST:  # otherwise the run is too short for this check
            run.findings.check_near(row, within)

    def _picture(self, run: Run, dots: dict[str, list[tuple[float, float, float, float]]]) -> Chart:
        marks: list[Curve | Dots] = []
        for i, (kind, label) in enumerate(KINDS.items()):
            own = [arm for arm in self.arms if arm.kind == kind]
            hold = fmean(r.service_time - (r.wait or 0.0) for arm in own for r, _ in arm.counted)
            sizes = range(math.floor(self.p.rate * hold / BUSIEST) + 1, max(self.p.sizes) + 3)
            rows = {row.name: row.predicted or 0.0 for row in run.result.rows}
            marks += [
                Curve(f"{label}: long run", [(c, _mean_wait(kind, self.p.rate, hold, c)) for c in sizes], i),
                Curve(
                    f"{label}: this run",
                    [(arm.size, rows[_row(arm)]) for arm in own],
                    i,
                    dashed=True,
                ),
                Dots(f"measured, {kind}", dots[kind], i),
            ]
        return Chart(
            "Each additional connection cuts the wait; exponential holding times double it",
            [Panel(marks, y="mean wait, ms", height=320, log=True, low=None)],
            x="connections in the pool",
            caption=f"{self.p.rate:g} Poisson requests per second hold a connection for {self.p.hold_ms} ms on "
            "average, with exponential or constant times. Solid lines: long-run means (Erlang, Crommelin). Dashed "
            "lines: the same queues with the arrivals and holding times of this run, with which the dots are "
            "compared.",
            low=min(sizes) - 0.3,
            high=max(sizes) + 0.3,
            whole=True,
            name="pool",
        )


def _row(arm: Arm) -> str:
    return f"wait, {arm.kind}, {arm.size} connections"


def _long_run(arm: Arm) -> str:
    return f"wait in the long run, {arm.kind}, {arm.size} connections"


def _other(kind: str) -> str:
    return "constant" if kind == "exponential" else "exponential"


def _mean_wait(kind: str, rate: float, hold: float, size: int) -> float:
    """Return the mean wait in ms from Erlang's or Crommelin's formula; *hold* in seconds."""
    model = queueing.mm_c_wait if kind == "exponential" else queueing.md_c_wait
    return model(rate, hold, size) * 1000


def _late(arm: Arm) -> float:
    """Return the 99th percentile of the start delay of requests in ms, after all connections have been opened."""
    lags = sorted(request.lag for request, _ in arm.counted)
    return lags[int(0.99 * len(lags))] * 1000 if lags else math.inf


def _in_use(requests: Sequence[Request], begin: float, end: float) -> float:
    """Return the mean number of connections in use from *begin* to *end*, sampled ten times a second."""
    taken = sorted(request.sent + (request.wait or 0.0) for request in requests)
    freed = sorted(request.done for request in requests)
    instants = [begin + i / 10 for i in range(int((end - begin) * 10))]
    return fmean(bisect_right(taken, at) - bisect_right(freed, at) for at in instants)
