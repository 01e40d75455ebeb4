"""Measures the reconnect storms of scenario `limits` below and above the tipping point, and with four mitigations."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from experiments import Chart, Curve, Moment, Panel, Quantity, Run
from scenarios.instruments.reconnecting import DEEP, Clients, Served, Server
from theory import reconnect

#: How long a reconnect storm is observed when no mitigation is enabled, as a multiple of the clients' time-out.
WATCH = 8.0
#: Maximum duration of a reconnect storm when a mitigation is enabled, as a multiple of the clients' time-out.
CURE = 40.0
#: Exponential back-off: upper bound of the first pause, as a multiple of the clients' time-out.
BASE = 2.0
#: Exponential back-off: largest upper bound of a pause, as a multiple of the clients' time-out.
LONGEST = 16.0
#: Length of the server's queue if it is limited, as a share of the handshakes completed within the clients' time-out.
ROOM = 0.8
#: Mean pause in seconds after a refusal; each pause is a random one between 50 % and 150 % of the mean.
RETRY_AFTER = 0.1
#: With back-off, the measurement ends when this share of the clients is connected, because the last clients may need
#: much longer.
MOST = 0.95
#: Number of simulated storms from which the duration with back-off is predicted, because this duration is random.
SIMULATED = 60
#: Relative tolerance of a number of clients or handshakes.
COUNTS = 0.25
#: Tolerances of a time: relative, and absolute in seconds; the larger one applies.
CLOSE, CLOSE_S = 0.15, 0.15
#: Validity gate: maximum delay of the server relative to its schedule, as a fraction of the clients' time-out.
LATE = 0.25
#: Validity gate: maximum 99th percentile of how late clients run against their schedule, as a fraction of their
#: time-out.
LAG = 0.3

Pause = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Arm:
    """Settings of one storm: number of clients, their time-out and pauses, and the limits of the server."""

    name: str
    clients: int
    #: Time in seconds after which a client abandons an attempt.
    timeout: float
    #: Time after which the observation ends, in seconds.
    until: float
    #: Returns the pauses of the clients, given a source of random numbers from 0 to 1.
    pause: Callable[[Callable[[], float]], Pause]
    #: Argument of the server's listen(), if it limits the queue.
    backlog: int | None = None
    #: Maximum number of connections that wait for their handshake; further ones are refused immediately.
    admit: int | None = None
    #: The measurement ends when this share of the clients is connected.
    share: float = 1.0

    def simulated(self, capacity: float, seed: int) -> reconnect.Storm:
        """Return the storm that the model predicts."""
        # In addition to its backlog, Linux queues one connection; one more is in service.
        limit = self.backlog + 2 if self.backlog is not None else self.admit
        pause = self.pause(random.Random(seed).random)
        refuses = self.admit is not None
        return reconnect.storm(self.clients, capacity, self.timeout, pause, self.until, limit=limit, refuses=refuses)


def _at_once(_: Callable[[], float]) -> Pause:
    return lambda _: 0.0


def _refused(rng: Callable[[], float]) -> Pause:
    return lambda _: RETRY_AFTER * (0.5 + rng())


class Storms:
    """Measures storms of growing size, then the mitigations, each on the largest storm.

    Args:
        capacity: handshakes per second of the server.
        timeout: seconds after which a client gives up.
        factors: numbers of clients, relative to the tipping point.
        patient: whether clients never give up before they are served (the negative control).
    """

    def __init__(self, capacity: float, timeout: float, factors: tuple[float, ...], *, patient: bool) -> None:
        self.capacity, self.timeout = capacity, timeout
        self.tipping = reconnect.tipping_point(capacity, timeout)
        sizes = [round(factor * self.tipping) for factor in sorted(factors)]
        self._patient = max(sizes) / capacity * 2
        room = max(1, round(ROOM * capacity * timeout))
        watch, cure, most = WATCH * timeout, CURE * timeout, max(sizes)
        self.plain = [
            Arm(f"{size} clients retry at once", size, self._patient if patient else timeout, watch, _at_once)
            for size in sizes
        ]
        self.cures = [
            Arm(
                "back-off with jitter", most, timeout, cure,
                lambda rng: reconnect.back_off(BASE * timeout, LONGEST * timeout, rng), share=MOST,
            ),
            Arm("a full queue refuses at once", most, timeout, cure, _refused, admit=room),
            Arm("a short listen queue", most, timeout, cure, _at_once, backlog=room),
            Arm("time-out longer than the queue", most, self._patient, cure, _at_once),
        ]  # fmt: skip
        #: Clients, and counters of the server, after each storm; keyed by arm.
        self.found: dict[str, tuple[Clients, Served]] = {}

    @property
    def arms(self) -> list[Arm]:
        """All storms, in order."""
        return [*self.plain, *self.cures]

    def duration(self) -> float:
        """Return the expected duration in seconds."""
        return sum(min(each.until, self._expected(each)[1]) + 0.3 for each in self.arms)

    def _expected(self, arm: Arm) -> tuple[float, float, float]:
        """Return the smallest, median and largest predicted time until the arm's share of clients is connected."""
        seeds = range(SIMULATED if arm.share < 1 else 1)
        times = sorted(arm.simulated(self.capacity, seed).until(arm.share, arm.clients) for seed in seeds)
        return times[0], median(times), times[-1]

    def _recovers(self, arm: Arm) -> bool:
        """Return whether theory predicts that the storm ends; the negative control uses the same prediction."""
        return arm not in self.plain or arm.clients < self.tipping

    def predict(self) -> Mapping[str, Quantity]:
        """Predict how each storm ends."""
        predicted = {}
        for arm in self.arms:
            if self._recovers(arm):
                predicted[_time(arm)] = Quantity(self._expected(arm)[1], "s")
            else:
                predicted[_count(arm)] = Quantity(self.capacity * self.timeout, "clients")
                wasted = self.capacity * (arm.until - self.timeout)
                predicted[_wasted(arm)] = Quantity(wasted, "handshakes")
        return predicted

    async def measure(self, run: Run) -> None:
        """Measure each storm against its own server process; a negative control omits the storms with a mitigation."""
        for arm in self.plain if run.negative else self.arms:
            run.phase(f"a reconnect storm: {arm.name}")
            with Server(self.capacity, arm.backlog or DEEP, arm.admit) as server:
                clients = Clients(server.address, arm.timeout, arm.pause(run.rng.random))
                await clients.storm(arm.clients, arm.until, arm.share)
                self.found[arm.name] = clients, server.stop()

    def conclude(self, run: Run) -> None:
        """Compare connected clients, wasted handshakes and times with theory."""
        found = run.findings
        late = max((served.late for _, served in self.found.values()), default=0.0)
        limit = LATE * self.timeout
        found.gate(
            "server of the storm: latest handshake", f"< {1000 * limit:g} ms", f"{1000 * late:.1f} ms", late < limit
        )
        lags = sorted(lag for clients, _ in self.found.values() for lag in clients.lags)
        lag, limit = lags[int(0.99 * len(lags))] if lags else 0.0, LAG * self.timeout
        found.gate("clients of the storm: lag, p99", f"< {1000 * limit:g} ms", f"{1000 * lag:.1f} ms", lag < limit)
        for arm in self.arms:
            if arm.name in self.found:
                self._conclude(run, arm, *self.found[arm.name])
        if self.found:
            found.fact("clients at the tipping point, 2 · capacity · time-out", round(self.tipping))
            run.raw["storm: seconds until each client was connected"] = {
                name: clients.connected for name, (clients, _) in self.found.items()
            }
            found.chart(self._chart())

    def _conclude(self, run: Run, arm: Arm, clients: Clients, served: Served) -> None:
        found = run.findings
        if not self._recovers(arm):
            found.check_near(found.row(_count(arm), float(len(clients.connected))), COUNTS)
            found.check_near(found.row(_wasted(arm), float(served.wasted)), COUNTS)
            return
        needed = max(1, round(arm.share * arm.clients))
        connected = clients.connected
        row = found.row(_time(arm), connected[needed - 1] if len(connected) >= needed else float("inf"))
        low, middle, high = self._expected(arm)
        room = max(CLOSE_S, CLOSE * middle)
        took = row.measured.value
        found.check(
            row.name, f"{max(0.0, low - room):.2f} to {high + room:.2f} s", f"{took:.2f} s",
            low - room <= took <= high + room, value=took, low=low - room, high=high + room,
        )  # fmt: skip

    def _chart(self) -> Chart:
        end = 1.05 * max(WATCH * self.timeout, *(self._expected(arm)[2] for arm in self.cures))
        panels = []
        for arms, y in ((self.plain, "retry at once: connected, %"), (self.cures, "with a cure: connected, %")):
            marks: list[Curve] = []
            for colour, arm in enumerate(arms):
                expected = arm.simulated(self.capacity, seed=1)
                watched = min(end, arm.until)
                marks.append(Curve(arm.name, _steps(expected.connected, arm.clients, watched), colour, dashed=True))
                if arm.name in self.found:
                    measured = self.found[arm.name][0].connected
                    steps = _steps(tuple(measured), arm.clients, watched)
                    marks.append(Curve(arm.name, steps, colour, measured=True))
            panels.append(Panel(marks, y=y, height=200, high=105))
        return Chart(
            "Above the tipping point a reconnect storm sustains itself",
            panels,
            x="seconds since all clients lost their connections",
            caption=f"The server completes {self.capacity:g} handshakes per second; clients give up after "
            f"{self.timeout:g} s. Dashed: theory; solid: measured. Up to {self.tipping:.0f} clients, retries at once "
            "do no lasting harm. With more, the server works only for clients that have given up. The lower panel "
            "shows the largest of these storms, each line with one cure.",
            moments=[Moment(self.timeout, "first time-out")],
            low=0.0,
            high=end,
            name="limits-storm",
        )


def _steps(connected: tuple[float, ...], clients: int, end: float) -> list[tuple[float, float]]:
    """Return the share of connected clients over time, in percent, as points of a line."""
    points = [(0.0, 0.0), *((at, 100 * (n + 1) / clients) for n, at in enumerate(connected) if at <= end)]
    return [*points, (end, points[-1][1])]


def _time(arm: Arm) -> str:
    most = "all" if arm.share == 1 else f"{arm.share:.0%}"
    return f"storm, {arm.name}: {most} connected after"


def _count(arm: Arm) -> str:
    return f"storm, {arm.name}: connected"


def _wasted(arm: Arm) -> str:
    return f"storm, {arm.name}: wasted handshakes"
