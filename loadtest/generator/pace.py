"""The pacer, an open loop that starts each request at its scheduled time and records the lag.

A load generator that lacks CPU time sends late and measures itself instead of the server.  To detect this, the pacer
records the lag of each request and, once per second, the CPU use of its thread as a share of one core.
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

#: Maximum number of requests sent before the event loop may read sockets again, when the pacer is behind schedule.
BURST = 32
#: Maximum CPU use of a valid measurement, as a share of one core.
MAX_CPU = 0.8
#: Maximum 99th percentile of the lag of a valid measurement, in seconds.
MAX_LAG = 0.005
#: The same limit as a share of the round-trip time; the larger of the two limits applies.
MAX_LAG_OF_RTT = 0.05
#: If the generator waits for a CPU for more than this share of the time, its lag is attributed to other programs.
MAX_WAITED = 0.05
#: Duration over which CPU use is averaged, in seconds.
WINDOW = 1.0


@dataclass(frozen=True, slots=True)
class Starvation:
    """Lag and CPU use of a load generator, which show whether the generator itself was the bottleneck."""

    #: 99th percentile of the lag in seconds; NaN if no request was sent.
    lag_p99: float
    #: CPU use in the busiest second, as a share of one core.
    cpu: float
    #: Share of the time in which the generator was ready to run but other programs used all CPUs.
    waited: float = 0.0
    #: Maximum allowed 99th percentile of the lag, in seconds.
    max_lag: float = MAX_LAG
    #: Maximum allowed CPU use, as a share of one core.
    max_cpu: float = MAX_CPU

    @classmethod
    def of(cls, lag: Histogram, cpu: float, rtt: float = 0.0, waited: float = 0.0) -> "Starvation":
        """Return lag and CPU use of a generator, with the limits that apply.

        Args:
            lag: lag of all requests.
            cpu: CPU use in the busiest second, as a share of one core.
            rtt: round-trip time to the server in seconds; a longer one allows more lag.
            waited: share of the time spent waiting for a CPU.
        """
        return cls(lag.percentile(99), cpu, waited, max(MAX_LAG, MAX_LAG_OF_RTT * rtt))

    @property
    def reasons(self) -> list[str]:
        """One description per exceeded limit; empty if no limit was exceeded."""
        found = []
        if self.lag_p99 > self.max_lag:
            busy = f" (no CPU was free for {self.waited:.0%} of the time)" if self.waited > MAX_WAITED else ""
            found.append(f"send lag p99 {self.lag_p99 * 1e3:.1f} ms, allowed {self.max_lag * 1e3:g} ms{busy}")
        if self.cpu > self.max_cpu:
            found.append(f"generator CPU {self.cpu:.0%} of a core, allowed {self.max_cpu:.0%}")
        return found

    @property
    def starved(self) -> bool:
        """Whether the generator was the bottleneck, so that its measurements are invalid."""
        return bool(self.reasons)


def run_delay() -> float:
    """Return the time that this thread has waited for a CPU, in seconds, from schedstat; 0 without kernel support."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


class Pacer:
    """Calls a function at each intended start, or as soon as possible afterwards."""

    def __init__(self, times: Iterator[float], send: Callable[[float], None]) -> None:
        """Prepare to send; `run` starts.

        Args:
            times: intended starts in ascending order, in seconds since `run` was called.
            send: called with each intended start; must start one request and return without blocking.
        """
        self.lag = Histogram()
        #: CPU use of this thread in each `WINDOW`, as a share of one core.
        self.shares: list[float] = []
        #: Time that this thread waited for a CPU while `run` was active, in seconds; set when `run` ends.
        self.waited = 0.0
        self.began = time.monotonic()
        self.sent = 0
        self._times, self._send = times, send
        self._next = next(times, math.inf)
        self._timer: Any = None  # None unless `run` is active
        self._done = asyncio.Event()
        self._cpu = 0.0
        self._sampled = 0.0

    def now(self) -> float:
        """Return seconds since `run` was called."""
        return time.monotonic() - self.began

    @property
    def due(self) -> float:
        """The next intended start, in seconds since `run` was called; infinity after the last one."""
        return self._next

    def starvation(self, rtt: float = 0.0) -> Starvation:
        """Return lag and CPU use so far, with their limits; a longer *rtt* (seconds) allows more lag."""
        return Starvation.of(self.lag, max(self.shares, default=0.0), rtt, self.waited / max(self.now(), 1e-3))

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests until *stop* is set or the schedule ends."""
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
        """Record the CPU use since the last sample, unless that sample is less than a quarter of `WINDOW` old."""
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
        else:  # setting a timer also clears its last expiration
            self._timer.set(self.began + self._next)
