"""`keepalive-race`: a request sent on an idle connection in the last round trip before the server's FIN arrives is lost."""

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from experiments import Bars, Chart, Control, Curve, Dots, Estimate, Experiment, Moment, Panel, Quantity, Run, parameter
from generator import Channel, Connection, Request, Source, Target
from stub import Stub
from theory import keepalive

HOST, PORT = "www.example.com", 80
#: Of the sweep, in round-trip times around the moment at which the server closes.
BEFORE, AFTER = 2.0, 0.25
#: Round-trip times by which the careful client is quicker than it has to be: timers and the network are not exact.
MARGIN = 0.5
#: How exact an edge of the window is: share of the RTT.
EXACT = 0.05
#: How late a request may be sent at the 99th percentile, share of the RTT.  Silences are taken as they were, not as they
#: were drawn, so that lateness moves no edge; it only makes other silences of those that were drawn.
MAX_LAG = 0.2
#: Standard errors of a share that chance may take.
SIGMAS = 3.3
#: Silences of the sweep without which chance alone could fail a check: of 355 races, the mean time until one is noticed
#: has a standard error of 3 %, a third of what is allowed.
SILENCES = 800
#: Seconds until a request that hears nothing is given up.
TIMEOUT = 10.0

Outcome = Literal["answered", "raced", "closed", "retired"]


@dataclass(frozen=True, slots=True)
class Parameters:
    """What can be varied."""

    timeout_s: float = parameter(5.0, quick=2.0, unit="s", low=0.5, high=60, help="after which the server closes an idle connection")  # fmt: skip
    rtt_ms: float = parameter(100.0, quick=200.0, unit="ms", low=20, high=1000, help="round-trip time between client and edge")  # fmt: skip
    connections: int = parameter(240, quick=160, low=10, high=300, help="at the same time, in each of three arms")
    seconds: float = parameter(150.0, quick=26.0, unit="s", low=5, high=900, help="how long")


@dataclass(slots=True)
class Gap:
    """One silence between an answer and the next request, and how it ended; seconds."""

    drawn: float
    #: As it was, from the answer until the request was sent or the connection ended.
    silence: float
    outcome: Outcome
    #: From sending until the race was noticed.
    noticed: float = math.nan
    #: From the wish to the answer, over a new connection where one was necessary; NaN: there was none.
    answer: float = math.nan

    @property
    def wish(self) -> float:
        """Seconds of silence after which the request was sent, or would have been, had the connection not ended."""
        return self.drawn if self.outcome == "closed" else self.silence


@dataclass(slots=True)
class Arm:
    """Clients that are alike."""

    name: str
    #: Seconds of idleness after which the client closes by itself; infinite: never.
    idle: float = math.inf
    gaps: list[Gap] = field(default_factory=list)
    #: Requests that failed on a connection that had just been opened: none should.
    failed: Counter[str] = field(default_factory=Counter)

    def ended(self, *outcomes: Outcome) -> list[Gap]:
        """Return the gaps that ended so."""
        return [gap for gap in self.gaps if gap.outcome in outcomes]

    def share(self, *outcomes: Outcome) -> Estimate:
        """Return the share of gaps that ended so."""
        return Estimate.share(len(self.ended(*outcomes)), len(self.gaps))


class KeepaliveRace(Experiment[Parameters]):
    """Silences drawn around the moment at which the server closes, at random, and with a client that closes first."""

    name = "keepalive-race"
    claim = "Of the requests that reuse a connection, those are lost that are sent in the last round trip before the server's FIN arrives; a client that is the first to close loses none."
    says = (
        "The seed: keep connections open, since opening one costs round trips. More subtle: the other side closes them too, and news of that takes half a "
        "round trip. A request that passes the FIN on its way meets a closed socket. It is not the idle connection that fails but the one that was idle for "
        "almost exactly the server's timeout, so it happens rarely, at random, and to everybody who sends at the interval at which the server closes."
    )
    source = "RFC 9112 sections 9.3.1, 9.5 and 9.6 (closing, and sending again); RFC 9110 section 9.2.2 (idempotent methods)."
    production = (
        "Let the client's idle timeout be shorter than the server's by more than a round trip and a timer's error, along the whole chain: load balancer 60 s, "
        "application 75 s, not the other way round. Send again, once and on a new connection, what is idempotent; never a POST, unless it carries a key by which "
        "the server knows it again: whether the lost one was served is unknown. Connection resets at a rate that follows the traffic, on reused connections "
        "only, are this race."
    )
    settings = Parameters
    control = Control(
        "every client closes an idle connection before the server does", ("share of gaps that race, Poisson",)
    )
    records = ("edge",)
    paths = ("edge",)

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        self.rtt = parameters.rtt_ms / 1000
        #: Requests per second on one connection: as many as there are timeouts.
        self.rate = 1 / parameters.timeout_s
        self.safe = keepalive.safe_client_timeout(parameters.timeout_s, (1 + MARGIN) * self.rtt)
        careless = self.safe if negative else math.inf
        self.sweep = Arm("sweep", careless)
        self.poisson = Arm("Poisson", careless)
        self.careful = Arm("closed by the client", self.safe)
        self._began = 0.0

    def duration(self) -> float:
        """Every arm at the same time."""
        return self.p.seconds + 5

    def predict(self) -> Mapping[str, Quantity]:
        """Return the window's edges, what it costs, and the shares."""
        ends, rtt = self.p.timeout_s, self.rtt
        return {
            "the race begins, silence": Quantity(ends - rtt, "s"),
            "the race ends, silence": Quantity(ends, "s"),
            "width of the window": Quantity(self.p.rtt_ms, "ms"),
            "noticed after, mean": Quantity(self.p.rtt_ms / 2, "ms"),
            "answer to a request that raced, mean": Quantity(2.5 * self.p.rtt_ms, "ms"),
            "share of gaps that race, Poisson": Quantity(100 * keepalive.race_share(self.rate, ends, rtt), "%"),
            "share of gaps that race, closed by the client": Quantity(0.0, "%"),
            "connections opened per gap, Poisson": Quantity(100 * keepalive.opened_share(self.rate, ends - rtt), "%"),
            "connections opened per gap, closed by the client": Quantity(
                100 * keepalive.opened_share(self.rate, self.safe), "%"
            ),
        }

    # --- clients ----------------------------------------------------------------------------------------------------

    async def measure(self, run: Run) -> None:
        """Make the path long and the server impatient; then be silent for a while, again and again."""
        address = (await run.blocking(Stub().resolve, HOST)).rdata[0]
        await run.lab.link("access", "near", rtt_ms=self.p.rtt_ms)
        await run.lab.fault("edge", "short_keep_alive", s=self.p.timeout_s)
        count = self.p.connections
        run.phase(f"{3 * count} connections, idle for about {self.p.timeout_s:g} s again and again")
        self._began = time.monotonic()
        rngs = [random.Random(f"{self.seed}:{i}") for i in range(3 * count)]
        clients = [
            *(self._visit(self.sweep, address, self._swept(rng), rng) for rng in rngs[:count]),
            *(self._visit(self.poisson, address, self._exponential(rng), rng) for rng in rngs[count : 2 * count]),
            *(self._visit(self.careful, address, self._exponential(rng), rng) for rng in rngs[2 * count :]),
        ]
        await asyncio.gather(*clients)

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _swept(self, rng: random.Random) -> Iterator[float]:
        low, high = self.p.timeout_s - BEFORE * self.rtt, self.p.timeout_s + AFTER * self.rtt
        while True:
            yield rng.uniform(low, high)

    def _exponential(self, rng: random.Random) -> Iterator[float]:
        while True:
            yield rng.expovariate(self.rate)

    async def _visit(self, arm: Arm, address: str, gaps: Iterator[float], rng: random.Random) -> None:
        """Be one client: ask, be silent, ask again; over a new connection when the old one is gone.

        No gap begins that might not end before the run does: what is cut off would be the long ones.
        """
        last = self.p.seconds - self.p.timeout_s - 4 * self.rtt
        await asyncio.sleep(rng.uniform(0, min(2.0, self.p.timeout_s)))  # connections do not march in step
        waiting: Gap | None = None
        while waiting is not None or self._now() < last:
            kept = _Kept(self._now, address)
            wished = self._now()
            error = await kept.ask()
            if waiting is not None:
                if not error:  # of a race: what was lost before is part of the time
                    waiting.answer = kept.answered - wished + (waiting.noticed if waiting.outcome == "raced" else 0.0)
                waiting = None
            if error:
                arm.failed[error] += 1
                await asyncio.sleep(self.rtt)  # a broken edge is not flooded
                continue
            while waiting is None and self._now() < last:
                gap = await self._gap(arm, kept, next(gaps))
                arm.gaps.append(gap)
                waiting = gap if gap.outcome != "answered" else None
            kept.close()

    async def _gap(self, arm: Arm, kept: "_Kept", drawn: float) -> Gap:
        """Be silent for *drawn* seconds, or until one of both sides has closed; then ask."""
        since = kept.answered
        # Counted from the request: an answer that was long on its way started the server's clock before ours.
        retire = kept.asked + self.rtt + arm.idle
        if await kept.closed_within(min(since + drawn, retire)):
            return Gap(drawn, self._now() - since, "closed")
        if self._now() >= retire:  # looked at when it is to be used, as a pool does: we may be late
            return Gap(drawn, self._now() - since, "retired")
        sent = self._now()
        error = await kept.ask()
        if error:
            return Gap(drawn, sent - since, "raced", noticed=self._now() - sent)
        return Gap(drawn, sent - since, "answered", answer=kept.answered - sent)

    # --- conclusions ------------------------------------------------------------------------------------------------

    @property
    def _arms(self) -> tuple[Arm, ...]:
        return (self.sweep, self.poisson, self.careful)

    def conclude(self, run: Run) -> None:
        """Edges of the window, what it costs, how often it happens, and to whom never."""
        run.raw["gaps"] = {arm.name: [(g.drawn, g.silence, g.outcome, g.noticed, g.answer) for g in arm.gaps] for arm in self._arms}  # fmt: skip
        self._gates(run)
        self._window(run)
        self._shares(run)
        self._at_the_edge(run)
        run.findings.chart(self._outcomes())
        run.findings.chart(self._answers())
        run.findings.chart(self._often(run))

    def _gates(self, run: Run) -> None:
        lags = sorted(g.silence - g.drawn for arm in self._arms for g in arm.ended("answered", "raced"))
        lag, allowed = lags[int(0.99 * len(lags))] if lags else math.inf, MAX_LAG * self.rtt
        run.findings.gate("send lag p99", f"<= {allowed * 1e3:g} ms", f"{lag * 1e3:.1f} ms", lag <= allowed)
        run.findings.enough("silences in the sweep", len(self.sweep.gaps), SILENCES)
        failed = sum((arm.failed for arm in self._arms), Counter[str]())
        words = ", ".join(f"{n} {cause}" for cause, n in failed.items())
        run.findings.gate("requests that failed on a new connection", "none", words or "none", not failed)

    def _window(self, run: Run) -> None:
        """Where answers end and races begin, and where races end, of silences that were spread evenly."""
        raced = [g.silence for g in self.sweep.ended("raced")]
        if not raced:
            run.findings.check(
                "the race begins, silence", "some requests are lost", f"none of {len(self.sweep.gaps)}", ok=False
            )
            return
        begins = edge([g.silence for g in self.sweep.ended("answered")], raced)
        ends = edge(raced, [g.drawn for g in self.sweep.ended("closed")])
        run.findings.check_near(run.findings.row("the race begins, silence", begins), EXACT * self.rtt, absolute=True)
        run.findings.check_near(run.findings.row("the race ends, silence", ends), EXACT * self.rtt, absolute=True)
        run.findings.check_near(run.findings.row("width of the window", (ends - begins) * 1e3), 2 * EXACT)
        as_said = sum(self._expected(g) == g.outcome for g in self.sweep.gaps) / len(self.sweep.gaps)
        run.findings.check("silences that end as theory says", ">= 97 %", f"{as_said:.1%}", as_said >= 0.97)
        races = self.sweep.ended("raced")
        run.findings.check_near(
            run.findings.row("noticed after, mean", Estimate.mean([g.noticed * 1e3 for g in races])), 2 * EXACT
        )
        again = [g.answer * 1e3 for arm in self._arms for g in arm.ended("raced")]
        lost = sum(math.isnan(each) for each in again)
        run.findings.check("answered when sent again, once", f"all of {len(again)}", f"{len(again) - lost}", lost == 0)
        answers = [g.answer * 1e3 for g in races if not math.isnan(g.answer)]
        run.findings.check_near(
            run.findings.row("answer to a request that raced, mean", Estimate.mean(answers)), 2 * EXACT
        )

    def _expected(self, gap: Gap) -> Outcome:
        if keepalive.races(gap.wish, self.p.timeout_s, self.rtt):
            return "raced"
        return "answered" if gap.wish < self.p.timeout_s else "closed"

    def _shares(self, run: Run) -> None:
        """Each share within what chance may do to it."""
        for arm in (self.poisson, self.careful):
            for name, outcomes in (
                (f"share of gaps that race, {arm.name}", ("raced",)),
                (f"connections opened per gap, {arm.name}", ("raced", "closed", "retired")),
            ):
                row = run.findings.row(name, arm.share(*outcomes).scaled(100))
                said = (row.predicted or 0.0) / 100
                room = 100 * SIGMAS * math.sqrt(said * (1 - said) / max(1, len(arm.gaps)))
                ok = abs(row.measured.value - 100 * said) <= room
                bounds = (
                    {"value": row.measured.value, "low": 100 * said - room, "high": 100 * said + room} if room else {}
                )
                run.findings.check(name, f"{100 * said:.3g} % ± {room:.2g}, {len(arm.gaps)} gaps", f"{row.measured.value:.3g} %", ok, **bounds)  # fmt: skip
        run.findings.fact("gaps, by arm", {arm.name: len(arm.gaps) for arm in self._arms})

    def _at_the_edge(self, run: Run) -> None:
        """The server's kernel counts data that came for a socket that nobody reads any more."""
        edge_ = run.recorders.series.get("edge")
        if edge_ is None:
            return
        races = sum(len(arm.ended("raced")) for arm in self._arms)
        met = edge_.rise("TcpExt.TCPAbortOnData") + edge_.rise("TcpExt.TCPAbortOnClose")
        run.result.prediction["requests that met a closed socket, by the edge's kernel"] = Quantity(races)
        row = run.findings.row("requests that met a closed socket, by the edge's kernel", met)
        room = max(2.0, 0.03 * races)
        run.findings.check(
            row.name, f"{races} ± {room:.0f}, as races were counted here", f"{met:.0f}", abs(met - races) <= room
        )

    # --- pictures ---------------------------------------------------------------------------------------------------

    def _outcomes(self) -> Chart:
        low, width = self.p.timeout_s - BEFORE * self.rtt, self.rtt / 20
        bars = []
        for outcome, label, colour in (("answered", "answered", "good"), ("raced", "lost in the race", "bad"), ("closed", "the server's FIN was here first", 6)):  # fmt: skip
            counts = Counter(int((g.wish - low) / width) for g in self.sweep.gaps if g.outcome == outcome)
            bars.append(Bars(label, [(low + i * width, low + (i + 1) * width, n) for i, n in sorted(counts.items())], colour))  # fmt: skip
        return Chart(
            "For one round trip before the server closes, a request is lost on the way",
            [Panel(bars, y=f"requests per {width * 1e3:g} ms of silence", height=240)],
            x="seconds of silence since the last answer",
            caption=f"The server closes after Ts = {self.p.timeout_s:g} s; a round trip, RTT, takes {self.p.rtt_ms:g} ms. Theory: the window begins one round trip before, since request and FIN "
            "pass each other on the way.",
            moments=[
                Moment(self.p.timeout_s - self.rtt, f"Ts − RTT = {self.p.timeout_s - self.rtt:g} s"),
                Moment(self.p.timeout_s, f"Ts = {self.p.timeout_s:g} s"),
            ],
            low=low,
            high=self.p.timeout_s + AFTER * self.rtt,
            name="keepalive-race",
        )

    def _answers(self) -> Chart:
        ends, rtt = self.p.timeout_s, self.rtt
        low, high = ends - BEFORE * rtt, ends + AFTER * rtt
        grid = [low + (high - low) * i / 600 for i in range(601)]
        theory = Curve("theory, sent again at once", [(g, keepalive.answer_s(g, ends, rtt) * 1e3) for g in grid], 0)
        known = [g for g in self.sweep.gaps if not math.isnan(g.answer)]
        shown = sorted(known, key=lambda g: g.wish)[:: max(1, len(known) // 90)]
        dots = Dots("measured", [(g.wish, g.answer * 1e3, g.answer * 1e3, g.answer * 1e3) for g in shown], 1)
        return Chart(
            "A request that meets the close takes up to three round trips instead of one",
            [Panel([dots, theory], y="milliseconds from the wish to the answer", height=240)],
            x="seconds of silence since the last answer",
            caption="A request that races learns of it only when the FIN arrives, and then needs a new connection: two round trips more.",
            low=low,
            high=high,
            name="keepalive-race-answers",
        )

    def _often(self, run: Run) -> Chart:
        ends = self.p.timeout_s
        rates = [0.05 * (200 ** (i / 80)) for i in range(81)]
        curve = Curve("theory: e^(-λTs) · (e^(λRTT) - 1)", [(x, 100 * keepalive.race_share(x / ends, ends, self.rtt)) for x in rates], 0)  # fmt: skip
        rows = {row.name: row.measured for row in run.result.rows}
        marks: list[Curve | Dots] = [curve]
        for arm, colour in ((self.poisson, 1), (self.careful, 2)):
            got = rows[f"share of gaps that race, {arm.name}"]
            label = "measured, closed by the server" if arm is self.poisson else "measured, closed by the client"
            marks.append(Dots(label, [(self.rate * ends, got.value, got.low, got.high)], colour))
        return Chart(
            "The race is likeliest at one request per timeout",
            [Panel(marks, y="gaps that end in the race, %", height=220)],
            x="requests per timeout, λTs",
            caption="Requests at random, λ per second on a connection that the server closes after Ts: a busy one is never silent for long, a quiet one is found closed.",
            log=True,
            name="keepalive-race-share",
        )


class _Kept:
    """One connection to the edge that is kept; one request at a time."""

    def __init__(self, now: Callable[[], float], address: str, port: int = PORT) -> None:
        self._now, self._to = now, (address, port)
        target = Target(HOST, port, "/whoami", None, "http", address)
        self._text = target.head(close=False)
        self._connection: Connection | None = None
        self._gone = asyncio.Event()
        self._result: asyncio.Future[str] | None = None
        #: When the last request was sent, and when its answer was whole.
        self.asked = 0.0
        self.answered = 0.0

    async def ask(self) -> str:
        """Send a request, on a new connection the first time; return why it was lost, or nothing."""
        self._result = asyncio.get_running_loop().create_future()
        now = self._now()
        request = Request(now, "pooled", now)
        if self._connection is None:
            self._connection = Connection(self._now, Channel(None, HOST), self._done, self._lost, self._ended)
            self._connection.open(request, self._text, self._to, Source())
        else:
            self._connection.ask(request, self._text)
        try:
            return await asyncio.wait_for(self._result, TIMEOUT)
        except TimeoutError:
            self.close()
            return "timeout"

    async def closed_within(self, until: float) -> bool:
        """Be silent until *until*; return early, and True, when the server closes."""
        try:
            await asyncio.wait_for(self._gone.wait(), max(0.0, until - self._now()))
        except TimeoutError:
            return self._gone.is_set()
        return True

    def close(self) -> None:
        """Close first, unless the server was quicker."""
        if self._connection is not None:
            self._connection.leave("client")

    def _done(self, connection: Connection) -> None:
        request = connection.request
        if request is not None:
            self.asked = request.sent + (request.connect or 0.0)
        self.answered, connection.request = self._now(), None
        self._settle("")

    def _lost(self, _: Connection, cause: str) -> None:
        self._settle(cause)

    def _ended(self, _: Connection) -> None:
        self._gone.set()
        self._settle("closed")

    def _settle(self, outcome: str) -> None:
        if self._result is not None and not self._result.done():
            self._result.set_result(outcome)


def edge(below: Sequence[float], above: Sequence[float]) -> float:
    """Return the place that leaves the fewest of *below* above it and of *above* below it, in the middle between its neighbours."""
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
