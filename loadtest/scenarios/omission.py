"""Scenario `omission`: compares how an open loop, a closed loop and a corrected closed loop report a server's stall."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from experiments import (
    Chart,
    Control,
    Curve,
    Dots,
    Estimate,
    Experiment,
    Lesson,
    Moment,
    Panel,
    ParameterError,
    Quantity,
    Run,
    parameter,
)  # fmt: skip
from generator import Histogram, Load, Schedule, Target, constant
from scenarios.instruments import subject
from scenarios.instruments.connection import Address, Connection
from theory import omission

PORT, PATH = 80, "/bytes/100"
#: Percentiles of the latency that the scenario compares.
PERCENTILES = (90.0, 95.0, 99.0)
#: Number of connections of the open loop; when all are in use, further requests wait, as in a connection pool.
POOL = 32
#: Validity gates for delays that the model ignores, as shares of the stall: maximum 99th percentile of the send lag,
#: and maximum time that the server needs after the stall to answer the accumulated requests.
MAX_LAG, MAX_DRAIN = 0.1, 0.25
#: Tolerance of a predicted latency in seconds, in addition to the measured send lag and the time to answer the
#: accumulated requests.  It allows for the delay with which the fault starts and for the varying response time.
EXACT = 0.15
#: Validity gate: maximum share of the closed loop's requests outside the stall that may be missing.
MAX_MISSING = 0.05


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters that the user can vary."""

    host: str = parameter("www.example.com", help="HTTP server under test, with the fault `stall`")
    window_s: float = parameter(60.0, quick=20.0, unit="s", low=10, high=600, help="duration of the measurement")
    stall_s: float = parameter(5.0, quick=2.5, unit="s", low=0.5, high=15, help="time for which the server stops")
    rate: float = parameter(100.0, unit="requests/s", low=20, high=500, help="rate of the open loop")
    users: int = parameter(4, low=1, high=50, help="users of the closed loop, who together send at the same rate")

    def __post_init__(self) -> None:
        # The stall must affect the highest compared percentile of latencies, but not the lowest.
        if not self.window_s / 50 <= self.stall_s <= self.window_s / 5:
            raise ParameterError(f"expected a stall of 2 to 20 % of window_s, got {self.stall_s / self.window_s:.0%}")


#: One request: the time at which it was due, in seconds since the start, and its latency in seconds.
Sample = tuple[float, float]


class Omission(Experiment[Parameters]):
    """Runs an open and a closed loop with the same rate at the same time, on a server that stalls once."""

    name = "omission"
    claim = "A closed loop does not send the requests that a stall would delay, so its percentiles hide the stall."
    says = (
        "The textbook says that what users experience is measured by percentiles of the response time. In practice "
        "the percentiles of most load generators leave out the worst: a user of a closed loop waits for each response "
        "before it sends the next request, so one stall of several seconds is one bad sample among thousands. Real "
        "users do not wait for each other: they keep arriving, and each of them waits for the rest of the stall."
    )
    source = (
        "G. Tene, “How NOT to Measure Latency” (2013); B. Schroeder et al., “Open Versus Closed: A Cautionary Tale” "
        "(NSDI 2006)."
    )
    production = (
        "Measure with a fixed arrival rate, and take latency from the moment at which a request was due (wrk2, k6's "
        "arrival-rate executors, Locust with this lab's --arrival-rate). If you only have a closed loop, correct its "
        "histogram by the interval between requests, and look at the maximum next to the percentiles. A maximum far "
        "above the 99.9th percentile is a stall that was omitted."
    )
    settings = Parameters
    control = Control("the open loop: latencies of the closed loop take its place", ("open loop: p99",))
    paths = ("edge",)
    lessons = (
        Lesson(
            "A server stops for some seconds in the middle of a test, about a tenth of its duration. Users of a closed "
            "loop wait for each response. Which 99th percentile do they report, above the usual response time?",
            "closed loop: p99", "s", 0.2,
        ),
        Lesson(
            "An open loop sends evenly during the same test. What is its 99th percentile, as a share of the stall?",
            "open loop: p99 / stall", "", 0.1,
        ),
    )  # fmt: skip

    def __init__(self, parameters: Parameters, *, negative: bool = False) -> None:
        super().__init__(parameters, negative=negative)
        #: Interval between the requests of one user of the closed loop in seconds, unless a response takes longer.
        self.interval = parameters.users / parameters.rate
        self.open: list[Sample] = []
        self.closed: list[Sample] = []
        self.failed = 0
        self.lag = 0.0
        #: Times at which the load generators started and the stall began, in seconds since the start of the run.
        self.began = self.stalled = 0.0
        self.host = ""

    def duration(self) -> float:
        """Return the expected duration in seconds."""
        return self.p.window_s + 5

    def predict(self) -> Mapping[str, Quantity]:
        """Predict the percentiles that each loop reports, excluding the server's usual response time."""
        stall, window = self.p.stall_s, self.p.window_s
        found = {}
        for percent in PERCENTILES:
            opened = omission.open_loop_quantile(percent / 100, stall, window)
            closed = omission.closed_loop_quantile(percent / 100, stall, window, self.interval)
            found[f"open loop: p{percent:g}"] = Quantity(opened, "s")
            found[f"closed loop: p{percent:g}"] = Quantity(closed, "s")
            found[f"closed loop, corrected: p{percent:g}"] = Quantity(opened, "s")
        found["open loop: p99 / stall"] = Quantity(omission.open_loop_quantile(0.99, stall, window) / stall)
        missing = self.p.users * omission.omitted(stall, self.interval)
        return {**found, "requests that the closed loop did not send": Quantity(missing, "requests")}

    async def measure(self, run: Run) -> None:
        """Run both loops at the same time, and stall the server in the middle."""
        to = await subject.find(run, self.p.host)
        if not to.host:
            run.skip(f"{self.p.host} is no host of the lab, so nothing here can stop it")
        self.host = to.host
        await run.recorders.start(to.host)
        target = Target(to.name, PORT, PATH, None, "http", to.address)
        schedule = Schedule(constant(self.p.rate, self.p.window_s))
        load = Load(target, schedule, kinds=("pooled",), pool=POOL, timeout=self.p.stall_s + 10)
        users = [
            _User(Address(to.name, to.address, PORT), self.interval, self.p.stall_s + 10) for _ in range(self.p.users)
        ]
        run.phase(f"an open loop of {self.p.rate:g} requests/s, and {self.p.users} users of a closed loop")
        self.began = run.now()
        for user in users:
            user.start(self.p.window_s)
        sending = asyncio.create_task(load.run())
        await run.until(self.began + self.p.window_s / 2)
        self.stalled = run.now()
        await run.lab.fault(to.host, "stall", ms=1000 * self.p.stall_s)
        await sending
        for user in users:
            await run.blocking(user.join)
        self.open = [(request.intended, request.latency) for request in load.requests if not request.error]
        self.closed = sorted(sample for user in users for sample in user.samples)
        self.failed = sum(bool(request.error) for request in load.requests) + sum(user.failed for user in users)
        self.lag = load.lag().percentile(99)

    # --- conclusions ------------------------------------------------------------------------------------------------

    def conclude(self, run: Run) -> None:
        """Compare the percentiles of all loops with the prediction, and the stall with the server's own record."""
        found, usual = run.findings, _usual(self.closed)
        found.gate("requests that failed", "0", str(self.failed), self.failed == 0)
        allowed = MAX_LAG * self.p.stall_s
        found.gate("send lag p99", f"<= {1000 * allowed:.0f} ms", f"{1000 * self.lag:.1f} ms", self.lag <= allowed)
        found.fact("usual response time, ms", round(1000 * usual, 1))
        loops = {
            "open loop": self.closed if self.negative else self.open,
            "closed loop": self.closed,
            "closed loop, corrected": corrected(self.closed, self.interval),
        }
        drain, most = self._drain(usual), MAX_DRAIN * self.p.stall_s
        found.gate(
            "time to answer what accumulated", f"<= {1000 * most:.0f} ms", f"{1000 * drain:.0f} ms", drain <= most
        )
        for name, samples in loops.items():
            histogram = Histogram(max(0.0, latency - usual) for _, latency in samples)
            for percent in PERCENTILES:
                value = histogram.percentile(percent) if samples else float("nan")
                row = found.row(f"{name}: p{percent:g}", Estimate(value, value, value, len(samples)))
                # Queued requests are answered in order, so the later one was due, the more requests are ahead of it.
                later = 1 - (row.predicted or 0.0) / self.p.stall_s if name != "closed loop" else 0.0
                found.check_near(row, round(EXACT + self.lag + drain * later, 3), absolute=True)
                if row.name == "open loop: p99":
                    found.row("open loop: p99 / stall", value / self.p.stall_s)
        due, stall = self.p.rate * self.p.window_s, self.p.stall_s
        row = found.row("requests that the closed loop did not send", due - len(self.closed))
        # A busy machine also delays the users outside the stall.
        stopped = self.stalled - self.began
        outside = sum(not stopped - usual <= at < stopped + stall + drain for at, _ in self.closed)
        share = 1 - outside / (due - self.p.rate * (stall + drain))
        found.gate("requests missing outside the stall", f"<= {MAX_MISSING:.0%}", f"{share:.1%}", share <= MAX_MISSING)
        # A user may be between two requests when the stall begins and when it ends.
        missing = max(0.0, share) * (due - self.p.rate * (stall + drain)) + self.p.rate * drain + 2 * self.p.users
        found.check_near(row, round(missing), absolute=True)
        self._witness(run)
        found.chart(self._latencies())
        found.chart(self._percentiles(loops))

    def _drain(self, usual: float) -> float:
        """Return the time from the end of the stall to the last response to an open-loop request sent before that end.

        The result is in seconds and excludes *usual*, the latency without a stall.
        """
        end = self.stalled - self.began + self.p.stall_s
        answered = [at + latency for at, latency in self.open if at < end]
        return max(0.0, max(answered, default=end) - usual - end)

    def _witness(self, run: Run) -> None:
        """Check that the server's own recorder, which samples ten times a second, stopped during the stall."""
        if (series := run.recorders.series.get(self.host)) is None or len(series.times) < 2:
            run.findings.leave_out("the server's own samples: it has no recorder")
            return
        gap = max(b - a for a, b in pairwise(series.times))
        low, high = self.p.stall_s - 0.1, 1.1 * self.p.stall_s + 0.3
        name = "longest pause between the samples of the server's own recorder"
        run.findings.check(name, f"{low:.1f} to {high:.1f} s", f"{gap:.2f} s", low <= gap <= high)

    def _latencies(self) -> Chart:
        stop = self.stalled - self.began
        line = [(stop, self.p.stall_s), (stop + self.p.stall_s, 0.0)]
        shown = [(at, latency) for at, latency in self.open if stop - 1 <= at <= stop + self.p.stall_s + 1][::4]
        dots = [(at, y, y, y) for at, y in shown]
        closed = [(at, y, y, y) for at, y in self.closed if stop - 1 <= at <= stop + self.p.stall_s + 1]
        return Chart(
            "One stall: an open loop sees it in every request that was due, a closed loop once per user",
            [
                Panel(
                    [
                        Curve("theory: the rest of the stall", line, 0),
                        Dots("open loop, every fourth request", dots, 1),
                        Dots("closed loop", closed, 2),
                    ],
                    y="latency, s",
                    height=260,
                )
            ],
            x="seconds since the start, when the request was due",
            caption="The server stops at the marked moment. Requests of the open loop that are due during the stall "
            "wait for its end. Each user of the closed loop has one such request, and sends no other meanwhile.",
            moments=[Moment(stop, "the server stops")],
            name="omission",
        )

    def _percentiles(self, loops: Mapping[str, Sequence[Sample]]) -> Chart:
        curves = []
        for colour, (name, samples) in enumerate(loops.items()):
            ordered = sorted(latency for _, latency in samples)
            points = [(q / 10, ordered[min(len(ordered) - 1, q * len(ordered) // 1000)]) for q in range(800, 1000)]
            curves.append(Curve(name, points if ordered else [], colour, measured=True, dashed="corrected" in name))
        return Chart(
            "The percentiles that each loop reports of the same stall",
            [Panel(curves, y="latency, s", height=230)],
            x="percentile",
            caption="The corrected closed loop adds, for each latency longer than the interval between requests, "
            "those of the requests that were not sent.",
            name="omission-percentiles",
        )


class _User:
    """A user of the closed loop, with one connection and a thread of its own."""

    def __init__(self, to: Address, interval: float, timeout: float) -> None:
        self._to, self._interval, self._timeout = to, interval, timeout
        self._thread: threading.Thread | None = None
        self.samples: list[Sample] = []
        self.failed = 0

    def start(self, seconds: float) -> None:
        """Send a request every `interval` seconds for *seconds*; if the last response is late, wait for it first."""
        self._thread = threading.Thread(target=self._run, args=(seconds,), daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the last response has arrived."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, seconds: float) -> None:
        try:
            with Connection(self._to, None, timeout=self._timeout) as connection:
                began, due = time.monotonic(), 0.0
                while (sent := time.monotonic() - began) < seconds:
                    connection.ask(PATH)
                    now = time.monotonic() - began
                    self.samples.append((sent, now - sent))
                    due = max(due + self._interval, now)
                    time.sleep(max(0.0, began + due - time.monotonic()))  # wait until the next request is due
        except OSError:
            self.failed += 1


def corrected(samples: Sequence[Sample], interval: float) -> list[Sample]:
    """Return *samples* plus those that a closed loop omitted: HdrHistogram's correction for coordinated omission.

    Args:
        samples: requests of a closed loop.
        interval: seconds between the requests of one user.
    """
    found = list(samples)
    for at, latency in samples:
        missed = int(latency / interval)
        found += [(at + n * interval, latency - n * interval) for n in range(1, missed + 1)]
    return found


def _usual(samples: Sequence[Sample]) -> float:
    """Return the median latency in seconds; a stall of at most a fifth of the measured time does not affect it."""
    ordered = sorted(latency for _, latency in samples)
    return ordered[len(ordered) // 2] if ordered else float("nan")
