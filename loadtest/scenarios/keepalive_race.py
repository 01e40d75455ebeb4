"""Scenario `keepalive-race`: requests sent in the last round trip before the server closes an idle connection fail."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from experiments import (
    Bars,
    Chart,
    Control,
    Curve,
    Dots,
    Estimate,
    Experiment,
    Lesson,
    Moment,
    Panel,
    Quantity,
    Run,
    parameter,
)
from scenarios.instruments.keepalive_clients import HOST, Arm, Clients, Gap, Outcome
from stub import Stub
from theory import keepalive

#: The sweep covers idle periods from `BEFORE` round-trip times below the server's time-out to `AFTER` above it.
BEFORE, AFTER = 2.0, 0.25
#: Additional safety margin of the client that closes first, for inaccurate timers and delays, in round-trip times.
MARGIN = 0.5
#: Largest error of the race window's measured start or end, as a share of the RTT.
EXACT = 0.05
#: Largest delay of a request behind its schedule at the 99th percentile, as a share of the RTT. Delays change the
#: distribution of idle periods, but not the ends of the race window, because actual idle periods are compared.
MAX_LAG = 0.2
#: Largest accepted deviation of a measured share, in standard errors.
SIGMAS = 3.3
#: Minimum number of idle periods in the sweep, so that a check does not fail by chance: with about 355 races, the mean
#: time until a race is detected has a standard error of 3 %, a third of the tolerance.
SILENCES = 800


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    timeout_s: float = parameter(
        5.0, quick=2.0, unit="s", low=0.5, high=60, help="idle time after which the server closes a connection"
    )
    rtt_ms: float = parameter(
        100.0, quick=200.0, unit="ms", low=20, high=1000, help="round-trip time between client and edge"
    )
    connections: int = parameter(
        240, quick=160, low=10, high=300, help="simultaneous connections in each of three arms"
    )
    seconds: float = parameter(150.0, quick=26.0, unit="s", low=5, high=900, help="how long requests are sent")


class KeepaliveRace(Experiment[Parameters]):
    """Sends requests after idle periods near the time-out and of random length, also from clients that close first."""

    name = "keepalive-race"
    claim = (
        "A request on an open connection is lost if it is sent during the last round trip before the server's FIN "
        "arrives; a client that closes first loses none."
    )
    says = (
        "The textbook says to keep connections open, because opening one costs round trips. In practice the server "
        "closes them as well, and the client learns of it half a round trip later. A request that crosses the FIN on "
        "the path meets a closed socket. It does not hit every idle connection, only one that was idle for almost "
        "exactly the server's timeout. So it happens rarely and at random, and to every client whose interval "
        "matches the timeout."
    )
    source = (
        "RFC 9112 sections 9.3.1, 9.5 and 9.6 (closing, and retrying); RFC 9110 section 9.2.2 (idempotent methods)."
    )
    production = (
        "Make the client's idle timeout shorter than the server's by more than a round trip and a timer's error, "
        "along the whole chain: 60 s at the load balancer and 75 s at the application, not the other way round. "
        "Retry idempotent requests once, on a new connection; never retry a POST unless it carries an idempotency "
        "key, because nothing tells whether the lost one was processed. If connection resets occur only on reused "
        "connections, at a rate that follows the traffic, suspect this race."
    )
    settings = Parameters
    control = Control(
        "every client closes an idle connection before the server does", ("share of gaps that race, Poisson",)
    )
    records = ("edge",)
    paths = ("edge",)
    lessons = (
        Lesson(
            "A client that closes idle connections earlier than the server sends requests at random times. Which "
            "share of its gaps ends in a lost request?",
            "share of gaps that race, closed by the client", "%", 0.1,
        ),
        Lesson(
            "A server closes idle connections after some time. How wide is the window of gaps between two "
            "requests in which the second is lost, if the round-trip time is `rtt_ms` of this run?",
            "width of the window", "ms", 20,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.rtt = parameters.rtt_ms / 1000
        #: Requests per second on each connection: on average, one per server time-out.
        self.rate = 1 / parameters.timeout_s
        self.safe = keepalive.safe_client_timeout(parameters.timeout_s, (1 + MARGIN) * self.rtt)
        careless = self.safe if negative else math.inf
        self.sweep = Arm("sweep", careless)
        self.poisson = Arm("Poisson", careless)
        self.careful = Arm("closed by the client", self.safe)
        self.arms = (self.sweep, self.poisson, self.careful)

    def duration(self) -> float:
        """Return the expected duration in seconds; all arms run at the same time."""
        return self.p.seconds + 5

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the start and end of the race window, the delay of a lost request, and the share of races."""
        ends, rtt = self.p.timeout_s, self.rtt
        raced = keepalive.race_share(self.rate, ends, rtt)
        opened, retired = (keepalive.opened_share(self.rate, idle) for idle in (ends - rtt, self.safe))
        return {
            "the race begins, silence": Quantity(ends - rtt, "s"),
            "the race ends, silence": Quantity(ends, "s"),
            "width of the window": Quantity(self.p.rtt_ms, "ms"),
            "noticed after, mean": Quantity(self.p.rtt_ms / 2, "ms"),
            "latency of a request that raced, mean": Quantity(2.5 * self.p.rtt_ms, "ms"),
            "share of gaps that race, Poisson": Quantity(100 * raced, "%"),
            "share of gaps that race, closed by the client": Quantity(0.0, "%"),
            "connections opened per gap, Poisson": Quantity(100 * opened, "%"),
            "connections opened per gap, closed by the client": Quantity(100 * retired, "%"),
        }

    async def measure(self, run: Run) -> None:
        """Add delay to the path, shorten the server's idle time-out, and run all clients."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        await run.lab.link("access", "near", rtt_ms=self.p.rtt_ms)
        await run.lab.fault("edge", "short_keep_alive", s=self.p.timeout_s)
        count = self.p.connections
        run.phase(f"{3 * count} connections, idle for about {self.p.timeout_s:g} s again and again")
        clients = Clients(address, self.p.timeout_s, self.rtt, self.p.seconds)
        rngs = [random.Random(f"{self.seed}:{i}") for i in range(3 * count)]
        running = []
        for number, arm in enumerate(self.arms):
            for rng in rngs[number * count : (number + 1) * count]:
                silences = self._swept(rng) if arm is self.sweep else self._exponential(rng)
                running.append(clients.run(arm, silences, rng))
        await asyncio.gather(*running)

    def _swept(self, rng: random.Random) -> Iterator[float]:
        low, high = self.p.timeout_s - BEFORE * self.rtt, self.p.timeout_s + AFTER * self.rtt
        while True:
            yield rng.uniform(low, high)

    def _exponential(self, rng: random.Random) -> Iterator[float]:
        while True:
            yield rng.expovariate(self.rate)

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Check the race window, the delay of a lost request, the share of races, and the counters of the edge."""
        run.raw["gaps"] = {
            arm.name: [(g.drawn, g.silence, g.outcome, g.noticed, g.answer) for g in arm.gaps] for arm in self.arms
        }
        self._gates(run)
        self._window(run)
        self._shares(run)
        self._at_the_edge(run)
        for chart in (self._outcomes(), self._latencies(), self._frequency(run)):
            run.findings.chart(chart)

    def _gates(self, run: Run) -> None:
        lags = sorted(g.silence - g.drawn for arm in self.arms for g in arm.ended("answered", "raced"))
        lag, allowed = lags[int(0.99 * len(lags))] if lags else math.inf, MAX_LAG * self.rtt
        run.findings.gate("send lag p99", f"<= {allowed * 1e3:g} ms", f"{lag * 1e3:.1f} ms", lag <= allowed)
        failed = sum((arm.failed for arm in self.arms), Counter[str]())
        words = ", ".join(f"{n} {cause}" for cause, n in failed.items())
        run.findings.gate("requests that failed on a new connection", "none", words or "none", not failed)
        run.findings.enough("silences in the sweep", len(self.sweep.gaps), SILENCES)

    def _window(self, run: Run) -> None:
        """Check where the race window begins and ends in the sweep."""
        found = run.findings
        races = self.sweep.ended("raced")
        if not races:
            got = f"none of {len(self.sweep.gaps)}"
            found.check("the race begins, silence", "some requests are lost", got, ok=False)
            return
        raced = [g.silence for g in races]
        begins = edge([g.silence for g in self.sweep.ended("answered")], raced)
        ends = edge(raced, [g.drawn for g in self.sweep.ended("closed")])
        found.check_near(found.row("the race begins, silence", begins), EXACT * self.rtt, absolute=True)
        found.check_near(found.row("the race ends, silence", ends), EXACT * self.rtt, absolute=True)
        found.check_near(found.row("width of the window", (ends - begins) * 1e3), 2 * EXACT)
        as_predicted = sum(self._expected(g) == g.outcome for g in self.sweep.gaps) / len(self.sweep.gaps)
        found.check("silences that end as predicted", ">= 97 %", f"{as_predicted:.1%}", as_predicted >= 0.97)
        found.check_near(found.row("noticed after, mean", Estimate.mean([g.noticed * 1e3 for g in races])), 2 * EXACT)
        retried = [g.answer for arm in self.arms for g in arm.ended("raced")]
        answered = sum(not math.isnan(each) for each in retried)
        name = "lost requests answered after one retry"
        found.check(name, f"all of {len(retried)}", str(answered), answered == len(retried))
        latencies = [g.answer * 1e3 for g in races if not math.isnan(g.answer)]
        row = found.row("latency of a request that raced, mean", Estimate.mean(latencies))
        found.check_near(row, 2 * EXACT)

    def _expected(self, gap: Gap) -> Outcome:
        if keepalive.races(gap.intended, self.p.timeout_s, self.rtt):
            return "raced"
        return "answered" if gap.intended < self.p.timeout_s else "closed"

    def _shares(self, run: Run) -> None:
        """Check that each measured share is within its statistical error of the prediction."""
        for arm in (self.poisson, self.careful):
            raced = run.findings.row(f"share of gaps that race, {arm.name}", arm.share("raced").scaled(100))
            opens = arm.share("raced", "closed", "retired").scaled(100)
            for row in (raced, run.findings.row(f"connections opened per gap, {arm.name}", opens)):
                share, got = row.predicted or 0.0, row.measured.value
                room = SIGMAS * math.sqrt(share * (100 - share) / max(1, len(arm.gaps)))
                # A predicted share of 0 allows no deviation; without bounds, the check must pass in every run.
                bounds = {"value": got, "low": share - room, "high": share + room} if room else {}
                expected = f"{share:.3g} % ± {room:.2g}, {len(arm.gaps)} gaps"
                run.findings.check(row.name, expected, f"{got:.3g} %", abs(got - share) <= room, **bounds)
        run.findings.fact("gaps, by arm", {arm.name: len(arm.gaps) for arm in self.arms})

    def _at_the_edge(self, run: Run) -> None:
        """Compare the races with the edge's kernel counter of data that arrives for a closed socket."""
        series = run.recorders.series.get("edge")
        if series is None:
            return
        races = sum(len(arm.ended("raced")) for arm in self.arms)
        met = series.rise("TcpExt.TCPAbortOnData") + series.rise("TcpExt.TCPAbortOnClose")
        name = "requests that met a closed socket, by the edge's kernel"
        run.result.prediction[name] = Quantity(races)
        run.findings.row(name, met)
        room = max(2.0, 0.03 * races)
        expected = f"{races} ± {room:.0f}, the races counted by the clients"
        run.findings.check(name, expected, f"{met:.0f}", abs(met - races) <= room)

    # --- charts -----------------------------------------------------------------------------------------------------

    def _outcomes(self) -> Chart:
        ends, rtt = self.p.timeout_s, self.rtt
        low, width = ends - BEFORE * rtt, rtt / 20
        outcomes: tuple[tuple[Outcome, str, str | int], ...] = (
            ("answered", "answered", "good"),
            ("raced", "lost in the race", "bad"),
            ("closed", "the FIN had arrived", 6),
        )
        bars = []
        for outcome, label, colour in outcomes:
            counts = Counter(int((g.intended - low) / width) for g in self.sweep.gaps if g.outcome == outcome)
            heights = [(low + i * width, low + (i + 1) * width, n) for i, n in sorted(counts.items())]
            bars.append(Bars(label, heights, colour))
        return Chart(
            "During the last round trip before the server closes, a request is lost",
            [Panel(bars, y=f"requests per {width * 1e3:g} ms of silence", height=240)],
            x="seconds of silence since the last response",
            caption=f"The server closes after Ts = {ends:g} s; the round-trip time RTT is {self.p.rtt_ms:g} ms. "
            "Theory: the window begins one round trip earlier, because request and FIN cross on the path.",
            moments=[Moment(ends - rtt, f"Ts − RTT = {ends - rtt:g} s"), Moment(ends, f"Ts = {ends:g} s")],
            low=low,
            high=ends + AFTER * rtt,
            name="keepalive-race",
        )

    def _latencies(self) -> Chart:
        ends, rtt = self.p.timeout_s, self.rtt
        low, high = ends - BEFORE * rtt, ends + AFTER * rtt
        grid = [low + (high - low) * i / 600 for i in range(601)]
        theory = Curve("theory, retried at once", [(g, keepalive.answer_s(g, ends, rtt) * 1e3) for g in grid], 0)
        known = [g for g in self.sweep.gaps if not math.isnan(g.answer)]
        shown = sorted(known, key=lambda g: g.intended)[:: max(1, len(known) // 90)]
        dots = Dots("measured", [(g.intended, g.answer * 1e3, g.answer * 1e3, g.answer * 1e3) for g in shown], 1)
        return Chart(
            "A request that loses the race takes up to three round trips instead of one",
            [Panel([dots, theory], y="latency, ms", height=240)],
            x="seconds of silence since the last response",
            caption="A lost request is noticed only when the FIN arrives; its retry then needs a new connection, two "
            "round trips more.",
            low=low,
            high=high,
            name="keepalive-race-answers",
        )

    def _frequency(self, run: Run) -> Chart:
        ends = self.p.timeout_s
        rates = [0.05 * (200 ** (i / 80)) for i in range(81)]
        curve = [(x, 100 * keepalive.race_share(x / ends, ends, self.rtt)) for x in rates]
        marks: list[Curve | Dots] = [Curve("theory: e^(-λTs) · (e^(λRTT) - 1)", curve, 0)]
        rows = {row.name: row.measured for row in run.result.rows}
        for arm, closes, colour in ((self.poisson, "server", 1), (self.careful, "client", 2)):
            got = rows[f"share of gaps that race, {arm.name}"]
            dot = (self.rate * ends, got.value, got.low, got.high)
            marks.append(Dots(f"measured, closed by the {closes}", [dot], colour))
        return Chart(
            "The race is most likely at one request per timeout",
            [Panel(marks, y="gaps that end in the race, %", height=220)],
            x="requests per timeout, λTs",
            caption="Poisson requests, λ per second on a connection that the server closes after Ts. A busy "
            "connection is never silent for long; a quiet one has usually been closed before.",
            log=True,
            name="keepalive-race-share",
        )


def edge(below: Sequence[float], above: Sequence[float]) -> float:
    """Return the boundary between two sets of values with the fewest values on the wrong side.

    Values in *below* belong below the boundary, values in *above* above it.  The result is the midpoint of the two
    neighbouring values; NaN if either sequence is empty.
    """
    marked = sorted([(value, -1) for value in below] + [(value, 1) for value in above])
    if not below or not above:
        return math.nan
    wrong = least = len(below)
    best = (marked[0][0], marked[0][0])
    for (value, side), (following, _) in pairwise(marked):
        wrong += side
        if wrong < least:
            least, best = wrong, (value, following)
    return sum(best) / 2
