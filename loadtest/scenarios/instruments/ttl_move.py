"""Clients of a name whose address changes: how long each kind keeps using the old address (scenario `ttl`)."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from experiments import Chart, Curve, Dots, Estimate, Moment, Panel, Quantity, Run
from experiments.estimate import trials
from experiments.recorders import HZ
from scenarios.instruments.ttl_clients import Crowd, Habit
from theory import ttl

#: Origin behind the edge that the name points to after the change.
NEW_ORIGIN = "catalog-3.example.com"
#: Queries per second for each name from other clients of the shared resolver.
OTHERS = 1.0
#: Seconds for which the old server is observed after the last client has switched to the new address.
REMAIN = 3.0
#: Seconds after T for which an old answer is tolerated, because TTLs in DNS messages are rounded to whole seconds.
ROUNDED = 0.5
#: Largest absolute error of the measured share of outdated answers; the share is measured with a few hundred answers.
STALE = 0.10
#: Largest accepted deviation from a predicted curve, in standard errors.
ERRORS = 3.5
#: Number of intervals in the chart into which the time after the change is divided.
BINS = 12


@dataclass(frozen=True, slots=True)
class AfterMove:
    """One client request after the change of the address."""

    #: Seconds since the change.
    at: float
    client: int
    #: Whether the old server responded.
    old: bool
    #: Whether the request opened a new connection.
    opened: bool


class Move:
    """Five kinds of clients that send requests before and after the address of their names changes."""

    def __init__(self, ttl_s: float, requests: float, clients: int, answer_s: float, connection_s: float) -> None:
        """Create the five habits; `populate` creates the clients.

        Args:
            ttl_s: T, the TTL of the names in seconds.
            requests: requests per second of each client.
            clients: number of clients of each kind.
            answer_s: minimum seconds for which the third kind keeps an answer.
            connection_s: seconds for which the second kind keeps a connection.
        """
        self.ttl_s, self.requests, self.clients = ttl_s, requests, clients
        self.habits = (
            Habit("honours the TTL"),
            Habit(f"keeps a connection for {connection_s:g} s", connection_s=connection_s),
            Habit(f"keeps an answer for {answer_s:g} s", answer_s=answer_s),
            Habit("keeps its connection", connection_s=math.inf),
            Habit("never asks again", answer_s=math.inf),
        )
        #: Seconds from the change until the last client that ever switches uses the new address.
        self.gone = ttl_s + max(answer_s, connection_s) + ROUNDED
        #: Seconds from the change until the end of the measurement.
        self.end = self.gone + REMAIN
        #: Queries per second for one name, from other clients and from one client of each kind.
        asking = (ttl.upstream_rate(requests, each.hold) for each in self.habits if math.isfinite(each.hold))
        self.others = OTHERS + sum(asking)
        self.crowds: list[Crowd] = []
        #: Time of the change in seconds, on the event loop's clock and on the run's clock.
        self.loop_time = self.moved = 0.0

    def populate(self, names: Sequence[str], rng: random.Random, resolver: tuple[str, int]) -> None:
        """Create one crowd per habit; each client has its own name, and so its own record in the resolver's cache."""
        self.crowds = [Crowd(habit, names, self.requests, rng, resolver) for habit in self.habits]

    def old_share(self, at: float, hold: float) -> float:
        """Return the predicted share of requests to the old address *at* seconds after the change."""
        return ttl.old_share(at, self.ttl_s, hold, self.requests, self.others)

    def predict(self) -> Mapping[str, Quantity]:
        """Return the predicted mean time on the old address by kind, and the share of clients that never switch."""
        predicted = {}
        for habit in self.habits:
            if math.isinf(habit.hold):
                predicted[_at_end(habit)] = Quantity(1.0)
            else:
                seconds = ttl.old_seconds(self.ttl_s, habit.hold, self.requests, self.others)
                predicted[_mean(habit)] = Quantity(seconds, "s")
        staying = sum(math.isinf(habit.hold) for habit in self.habits) / len(self.habits)
        predicted["all clients on the old address at the end"] = Quantity(staying)
        predicted["connections opened per request, old server, at the end"] = Quantity(0.5)
        return predicted

    def after(self, crowd: Crowd) -> list[AfterMove]:
        """Return the requests that a crowd sent after the change."""
        return [
            AfterMove(each.at - self.loop_time, each.client, each.origin != NEW_ORIGIN, each.opened)
            for each in crowd.answered
            if each.at >= self.loop_time
        ]

    def conclude(self, run: Run) -> None:
        """Compare each kind of client with its predicted curve; compare connections and requests at the old server."""
        found = run.findings
        causes = Counter(cause for crowd in self.crowds for cause in crowd.lost)
        lost, answered = causes.total(), sum(len(crowd.answered) for crowd in self.crowds)
        words = ", ".join(f"{n} × {cause}" for cause, n in causes.most_common(2))
        got = f"{lost} of {answered + lost} {words}".strip()
        found.gate("requests without an answer", "<= 0.5 %", got, lost <= 0.005 * answered)
        for crowd in self.crowds:
            habit, after = crowd.habit, self.after(crowd)
            run.raw[f"requests, {habit.name}"] = [(round(r.at, 3), r.client, r.old, r.opened) for r in after]
            found.fact(f"first request on the new address, {habit.name}", self._first(after))
            at_end = [each.old for each in after if each.at >= self.gone]
            got = f"{sum(at_end)} of {len(at_end)}"
            if math.isinf(habit.hold):
                row = found.row(_at_end(habit), Estimate.share(sum(at_end), len(at_end)))
                found.check(row.name, "all", got, bool(at_end) and all(at_end))
                continue
            room, mean = ERRORS * self._standard_error(habit), self._mean_seconds(after)
            row = found.row(_mean(habit), Estimate(mean, mean - room / 2, mean + room / 2, len(after)))
            found.check_near(row, round(room, 2), absolute=True)
            ok = bool(at_end) and not any(at_end)
            found.check(f"gone at the end: {habit.name}", "0 on the old address", got, ok)
        self._sockets(run)
        found.chart(self.chart(run))

    def _first(self, after: Iterable[AfterMove]) -> str:
        """Describe when the first, the median and the last client sent a request to the new address."""
        first: dict[int, float] = {}
        for each in sorted(after, key=lambda each: each.at):
            if not each.old:
                first.setdefault(each.client, each.at)
        if not first:
            return f"none of {self.clients} clients within {self.end:.0f} s"
        times = sorted(first.values())
        half = times[len(times) // 2]
        return f"{times[0]:.1f} s the first, {half:.1f} s half, {times[-1]:.1f} s the last of {len(times)} clients"

    def _mean_seconds(self, after: Iterable[AfterMove]) -> float:
        """Return the mean time on the old address in seconds.

        The result is the area below the measured share of requests to the old address.  Poisson requests sample the
        time average without bias (PASTA).
        """
        bins: dict[int, list[bool]] = defaultdict(list)
        width = self.end / (2 * BINS)
        for each in after:
            bins[int(each.at / width)].append(each.old)
        return sum(sum(each) / len(each) * width for each in bins.values())

    def _standard_error(self, habit: Habit) -> float:
        """Return the standard error of the mean time on the old address, in seconds.

        The standard error includes the variation between independent clients, and the error of observing clients only
        through their requests.
        """
        steps, end = 400, self.gone
        mean = second = noise = 0.0
        for i in range(steps):
            at = (i + 0.5) * end / steps
            share = self.old_share(at, habit.hold)
            mean += share * end / steps
            second += 2 * at * share * end / steps
            noise += share * (1 - share) * end / steps
        return math.sqrt((second - mean * mean + noise / self.requests) / self.clients)

    def _sockets(self, run: Run) -> None:
        """Compare the number of connections that the old server accepts at the end with the number of requests."""
        until = self.end - 0.2
        at_end = [each for crowd in self.crowds for each in self.after(crowd) if self.gone <= each.at < until]
        old = [each for each in at_end if each.old]
        run.findings.enough("requests at the end", len(at_end), trials(STALE))
        share = Estimate.share(len(old), len(at_end))
        run.findings.check_near(
            run.findings.row("all clients on the old address at the end", share), STALE, absolute=True
        )
        if "edge" not in run.recorders.series or not old:
            return
        # Number of connections that the server's kernel accepted; it may include up to two health probes.
        opens = self._accepted(run, self.gone, until)
        row = run.findings.row("connections opened per request, old server, at the end", opens / len(old))
        # Tolerance for the random mix of the two kinds that never switch: one of them opens a connection per request.
        room = round(max(STALE, ERRORS * 0.5 / math.sqrt(len(old))), 2)
        run.findings.check_near(row, room, absolute=True)
        every = [each for crowd in self.crowds for each in self.after(crowd) if each.old]
        opened = sum(each.opened for each in every)
        words = f"{len(every)} requests, {opened} of them on a new connection"
        run.findings.fact("old server after the change", words)

    def _accepted(self, run: Run, begin: float, end: float) -> float:
        series = run.recorders.series.get("edge")
        if series is None:
            return math.nan
        # `rise` includes one sample before and one after the interval; skip the first for an exact length.
        return series.rise("Tcp.PassiveOpens", self.moved + begin + 1 / HZ, self.moved + end)

    def chart(self, run: Run) -> Chart:
        """Draw the share of requests to the old address by kind, above the number of requests to the old server."""
        width = self.end / BINS
        kinds = [(c.habit.name, c.habit.hold, [c]) for c in self.crowds if math.isfinite(c.habit.hold)]
        # The two kinds that never switch share one line, because separate lines would overlap.
        staying = [crowd for crowd in self.crowds if math.isinf(crowd.habit.hold)]
        kinds.append((" or ".join(crowd.habit.name for crowd in staying), math.inf, staying))
        marks: list[Curve | Dots] = []
        for i, (label, hold, crowds) in enumerate(kinds):
            grid = [self.end * j / 200 for j in range(201)]
            marks.append(Curve(label, [(t, 100 * self.old_share(t, hold)) for t in grid], i))
            bins: dict[int, list[bool]] = defaultdict(list)
            for each in (each for crowd in crowds for each in self.after(crowd)):
                bins[int(each.at / width)].append(each.old)
            dots = []
            for j in sorted(each for each in bins if each < BINS):
                share = Estimate.share(sum(bins[j]), len(bins[j])).scaled(100)
                dots.append(((j + 0.5) * width, share.value, share.low, share.high))
            marks.append(Dots(label, dots, i))
        old = [each.at for crowd in self.crowds for each in self.after(crowd) if each.old]
        served = [(j * width, sum(j * width <= at < (j + 1) * width for at in old) / width) for j in range(BINS)]
        opens = [(j * width, self._accepted(run, j * width, (j + 1) * width) / width) for j in range(BINS)]
        load = [
            Curve(label, [*points, (self.end, points[-1][1])], i, measured=True, steps=True)
            for i, (label, points) in enumerate((("requests served", served), ("connections accepted", opens)))
        ]
        return Chart(
            "Who still uses the old server after a name has moved",
            [
                Panel(marks, y="requests to the old address, %", height=300, high=104),
                Panel(load, y="at the old server, per second", height=150),
            ],
            x="seconds since the change",
            moments=[Moment(self.ttl_s, "T"), Moment(self.gone, "T + longest hold: the last client that ever moves")],
            caption=f"Upper panel: lines are theory, dots are {self.clients} clients of each kind, with 95 % "
            "intervals. Lower panel: a kept connection carries requests without opening anything, so new connections "
            "make the old server look idle before it is.",
            low=0.0,
            high=self.end,
            name="ttl-ignored",
        )


def _at_end(habit: Habit) -> str:
    return f"on the old address at the end: {habit.name}"


def _mean(habit: Habit) -> str:
    return f"on the old address, mean: {habit.name}"
