"""The open loop of every load: sends when the schedule says, and records how late it was.

A generator that lacks CPU sends late and then measures itself instead of the server.  So each load records how late every
request was sent, and the share of one core that this thread used, second by second.
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

#: Requests sent before the event loop may read again; more would delay reading while we catch up.
BURST = 32
#: Limits of a valid measurement: share of one core; 99th percentile of the lag in seconds, or as a share of the RTT.
MAX_CPU = 0.8
MAX_LAG = 0.005
MAX_LAG_OF_RTT = 0.05
#: Share of time spent waiting for a CPU above which other programs, not the load, caused the lag.
MAX_WAITED = 0.05
#: Seconds over which the share of a core is averaged.
WINDOW = 1.0


@dataclass(frozen=True, slots=True)
class Starvation:
    """Whether the generator itself was the bottleneck."""

    #: Seconds by which requests began late, 99th percentile; NaN when there were none.
    lag_p99: float
    #: Share of one core in the busiest second.
    cpu: float
    #: Share of the time in which it was ready to run but no CPU was free, because other programs used them.
    waited: float = 0.0
    #: The allowed lag in seconds.
    max_lag: float = MAX_LAG
    max_cpu: float = MAX_CPU

    @classmethod
    def of(cls, lag: Histogram, cpu: float, rtt: float = 0.0, waited: float = 0.0) -> "Starvation":
        """Build from *lag* and *cpu*; a longer *rtt* in seconds allows more lag."""
        return cls(lag.percentile(99), cpu, waited, max(MAX_LAG, MAX_LAG_OF_RTT * rtt))

    @property
    def reasons(self) -> list[str]:
        """The limits that were exceeded, in words; empty if none."""
        found = []
        if self.lag_p99 > self.max_lag:
            busy = f" (no CPU was free for {self.waited:.0%} of the time)" if self.waited > MAX_WAITED else ""
            found.append(f"send lag p99 {self.lag_p99 * 1e3:.1f} ms, allowed {self.max_lag * 1e3:g} ms{busy}")
        if self.cpu > self.max_cpu:
            found.append(f"generator CPU {self.cpu:.0%} of a core, allowed {self.max_cpu:.0%}")
        return found

    @property
    def starved(self) -> bool:
        """Whether the generator was the bottleneck, so that its figures are invalid."""
        return bool(self.reasons)


def run_delay() -> float:
    """Return the seconds that this thread was ready to run but had no CPU (schedstat; 0 without kernel support)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class Pacer:
    """Calls *send* at each intended start, or as soon as possible after it."""

    def __init__(self, times: Iterator[float], send: Callable[[float], None]) -> None:
        """Prepare to send.

        Args:
            times: intended starts in order, in seconds since `run` began.
            send: starts one request and returns at once.
        """
        self.lag = Histogram()
        #: Share of one core that this thread used in each `WINDOW`.
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
        self._sampled = 0.0

    def now(self) -> float:
        """Return seconds since `run` began."""
        return time.monotonic() - self.began

    @property
    def due(self) -> float:
        """The next intended start; infinite after the last."""
        return self._next

    def starvation(self, rtt: float = 0.0) -> Starvation:
        """Return whether the generator has been the bottleneck so far."""
        return Starvation.of(self.lag, max(self.shares, default=0.0), rtt, self.waited / max(self.now(), 1e-3))

    async def run(self, stop: asyncio.Event) -> None:
        """Send until *stop* is set or the schedule ends."""
        loop = asyncio.get_running_loop()
        self.began = time.monotonic()
        self._timer = Timer()
        loop.add_reader(self._timer.fileno(), self._fire)
        self._cpu, self._sampled = time.thread_time(), self.began
        before = run_delay()
        waiters = [asyncio.ensure_future(each.wait()) for each in (stop, self._done)]
        try:
            self._fire()
            finished: set[asyncio.Future[Literal[True]]] = set()
            while not finished:
                finished, _ = await asyncio.wait(waiters, timeout=WINDOW, return_when=asyncio.FIRST_COMPLETED)
                self._sample_cpu()
        finally:
            self.waited = run_delay() - before
            for each in waiters:
                each.cancel()
            loop.remove_reader(self._timer.fileno())
            self._timer.close()
            self._timer = None

    def _sample_cpu(self) -> None:
        """Record the share of a core since the last sample, unless that was too recent to be meaningful."""
        cpu, now = time.thread_time(), time.monotonic()
        if now - self._sampled >= WINDOW / 4:
            self.shares.append((cpu - self._cpu) / (now - self._sampled))
            self._cpu, self._sampled = cpu, now

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
        else:  # setting the timer also clears its expiry
            self._timer.set(self.began + self._next)
