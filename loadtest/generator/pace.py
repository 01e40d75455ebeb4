"""Sends when the schedule says, and knows how late it was: the open loop that every load shares.

A generator that lacks CPU sends late, and its figures are its own, not the server's.  So two things are kept beside
every load: how late each request began, and what share of one core this thread took, second by second.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from generator.histogram import Histogram
from generator.timer import Timer

#: Requests begun in one go.  More would keep the event loop from reading replies while we catch up.
BURST = 32
#: Validity (SCENARIOS, rule 3): share of one core, and seconds of lag at the 99th percentile or share of the RTT.
MAX_CPU = 0.8
MAX_LAG = 0.005
MAX_LAG_OF_RTT = 0.05
#: Share of waiting for a CPU from which on the machine, not the load, is to blame.
MAX_WAITED = 0.05
#: Seconds over which the share of a core is taken.
WINDOW = 1.0


@dataclass(frozen=True, slots=True)
class Starvation:
    """Whether the generator itself was the bottleneck."""

    #: Seconds by which requests began late, 99th percentile; NaN when there were none.
    lag_p99: float
    #: Share of one core in the busiest second.
    cpu: float
    #: Share of the time for which it was ready to run and no CPU was free: then others keep the machine busy.
    waited: float = 0.0
    #: What the lag may be, in seconds.
    max_lag: float = MAX_LAG
    max_cpu: float = MAX_CPU

    @classmethod
    def of(cls, lag: Histogram, cpu: float, rtt: float = 0.0, waited: float = 0.0) -> "Starvation":
        """Judge *lag* and *cpu*; a longer *rtt* in seconds allows more lag."""
        return cls(lag.percentile(99), cpu, waited, max(MAX_LAG, MAX_LAG_OF_RTT * rtt))

    @property
    def reasons(self) -> list[str]:
        """Say what was too much; empty when all is well."""
        found = []
        if self.lag_p99 > self.max_lag:
            busy = f" (no CPU was free for {self.waited:.0%} of the time)" if self.waited > MAX_WAITED else ""
            found.append(f"send lag p99 {self.lag_p99 * 1e3:.1f} ms, allowed {self.max_lag * 1e3:g} ms{busy}")
        if self.cpu > self.max_cpu:
            found.append(f"generator CPU {self.cpu:.0%} of a core, allowed {self.max_cpu:.0%}")
        return found

    @property
    def starved(self) -> bool:
        """Whether figures measured meanwhile say more of the generator than of the server."""
        return bool(self.reasons)


def run_delay() -> float:
    """Return the seconds for which this thread was ready to run and had no CPU (schedstat; 0 where the kernel keeps none)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class Pacer:
    """Calls *send* with each intended start, at that time or as soon after as can be."""

    def __init__(self, times: Iterator[float], send: Callable[[float], None]) -> None:
        """Make one.

        Args:
            times: intended starts, in seconds since `run` began, in order.
            send: begins one request and returns at once.
        """
        self.lag = Histogram()
        #: Share of one core that this thread took, by `WINDOW`.
        self.shares: list[float] = []
        #: Seconds that this thread waited for a CPU.
        self.waited = 0.0
        self.began = time.monotonic()
        self.sent = 0
        self._times, self._send = times, send
        self._next = next(times, math.inf)
        self._timer: Any = None  # a `Timer` while running
        self._done = asyncio.Event()
        self._cpu = 0.0
        self._looked = 0.0

    def now(self) -> float:
        """Return seconds since `run` began."""
        return time.monotonic() - self.began

    @property
    def due(self) -> float:
        """The next intended start; infinite when there is none."""
        return self._next

    def starvation(self, rtt: float = 0.0) -> Starvation:
        """Judge what was measured so far."""
        return Starvation.of(self.lag, max(self.shares, default=0.0), rtt, self.waited / max(self.now(), 1e-3))

    async def run(self, stop: asyncio.Event) -> None:
        """Send until *stop* is set or the schedule ends."""
        loop = asyncio.get_running_loop()
        self.began = time.monotonic()
        self._timer = Timer()
        loop.add_reader(self._timer.fileno(), self._fire)
        self._cpu, self._looked = time.thread_time(), self.began
        before = run_delay()
        waiters = [asyncio.ensure_future(each.wait()) for each in (stop, self._done)]
        try:
            self._fire()
            finished: set[asyncio.Future[Literal[True]]] = set()
            while not finished:
                finished, _ = await asyncio.wait(waiters, timeout=WINDOW, return_when=asyncio.FIRST_COMPLETED)
                self._look()
        finally:
            self.waited = run_delay() - before
            for each in waiters:
                each.cancel()
            loop.remove_reader(self._timer.fileno())
            self._timer.close()
            self._timer = None

    def _look(self) -> None:
        """Note the share of a core since the last look; a glimpse of a few milliseconds would say nothing."""
        cpu, now = time.thread_time(), time.monotonic()
        if now - self._looked >= WINDOW / 4:
            self.shares.append((cpu - self._cpu) / (now - self._looked))
            self._cpu, self._looked = cpu, now

    def _fire(self) -> None:
        for _ in range(BURST):
            if self._next == math.inf:
                break
            late = self.now() - self._next
            if late < 0:
                break
            self.lag.add(late)
            self.sent += 1
            intended, self._next = self._next, next(self._times, math.inf)
            self._send(intended)
        if self._next == math.inf:
            self._timer.clear()
            self._done.set()
        else:  # setting it anew takes the expiry notice away, too
            self._timer.set(self.began + self._next)
