"""I/O shell of `network`: a thread that reads packets from the TUN device and writes them back when they are due.

It is a separate thread with blocking calls because asyncio timers have a resolution of milliseconds, whereas select(2)
has microseconds.  No other thread may access the network and its links; `submit` runs a function in this thread.
"""

import ctypes
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import repeat
from typing import Any, TypeVar

from telemetry import log
from wan.network import Network
from wan.pcap import Capture

#: Maximum number of packets to read before writing due packets; reading this many takes at most 0.3 ms.
READ_BATCH = 64
#: Bounds in nanoseconds of the lead time by which the thread wakes up before a packet is due; the thread polls during
#: that time.  The lead adapts to the lateness of recent timers: about 20 µs on a busy core, a few hundred µs on an idle
#: core.
MIN_LEAD, MAX_LEAD = 20_000, 500_000
#: prctl(2) option and value in nanoseconds: maximum lateness of this thread's timers.  The kernel's default is 50 µs.
PR_SET_TIMERSLACK, SLACK_NS = 29, 1

logger = log.get("wan.router")
T = TypeVar("T")


class Router:
    """Moves packets between the network and a file descriptor that returns one packet per read."""

    def __init__(
        self,
        fd: int,
        network: Network,
        *,
        max_packet: int = 1500,
        on_late: Callable[[float], None] | None = None,
        on_failure: Callable[[OSError], None] | None = None,
    ) -> None:
        """Prepare the router without starting its thread; see `start`.

        Args:
            fd: non-blocking file descriptor; the caller closes it.
            network: accessed only by the router's thread after `start`.
            max_packet: maximum packet length in bytes; longer packets are truncated.
            on_late: called in the router's thread for each batch of due packets; the argument is the lateness of the
                batch's first packet in seconds.
            on_failure: called in the router's thread if reading from *fd* fails; the thread then ends.
        """
        self.network = network
        self.capture: Capture | None = None
        #: Number of packets that could not be written to the descriptor.
        self.write_errors = 0
        self._fd, self._max_packet = fd, max_packet
        self._on_late, self._on_failure = on_late, on_failure
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._stop_at: int | None = None
        self._lead = MIN_LEAD
        self._thread = threading.Thread(target=self._run, name="wan-router", daemon=True)

    def start(self) -> None:
        """Start the router's thread."""
        self._thread.start()

    def stop(self, drain: float = 1.0) -> int:
        """Stop reading, write the packets that are due within *drain* seconds, and end the thread.

        Return the number of packets that were not written.
        """
        self._stop_at = time.monotonic_ns() + round(drain * 1e9)
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join()
        for future, _ in self._calls:
            future.cancel()
        self._calls.clear()
        os.close(self._wake)
        return len(self.network)

    @property
    def running(self) -> bool:
        """Whether the router's thread is running."""
        return self._thread.is_alive()

    def submit(self, function: Callable[[], T]) -> "Future[T]":
        """Run *function* in the router's thread between two packets; return a future for its result."""
        future: Future[T] = Future()
        self._calls.append((future, function))
        os.eventfd_write(self._wake, 1)
        return future

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, SLACK_NS, 0, 0, 0)
        try:
            while self._stop_at is None:
                drained = self._read()
                if self._calls:
                    self._perform()
                wait = self._write_due()
                if drained and (wait is None or wait > self._lead):
                    self._sleep(wait)  # sleeps until a packet arrives or is due
            self._drain()
        except OSError as error:
            logger.error("router_failed", error=str(error))
            if self._on_failure:
                self._on_failure(error)

    def _read(self) -> bool:
        """Forward up to `READ_BATCH` packets into the network; return whether the descriptor has no more to read."""
        fd, size, receive, capture = self._fd, self._max_packet, self.network.receive, self.capture
        read, write, clock = os.read, os.write, time.monotonic_ns
        try:
            for _ in repeat(None, READ_BATCH):
                packet = read(fd, size)
                now = clock()
                if capture is not None and not capture.offer(packet, now):
                    capture = self.capture = None
                passed = receive(packet, now)
                if passed is not None:
                    try:
                        write(fd, passed)
                    except OSError as error:
                        self._not_written(error)
        except BlockingIOError:
            return True
        return False

    def _write_due(self) -> int | None:
        """Write the packets that are due; return the time until the next is due (ns), or None if none is in flight."""
        network, fd, write = self.network, self._fd, os.write
        at = network.next_due()
        if at is None:
            return None
        now = time.monotonic_ns()
        if at > now:
            return at - now
        for packet in network.due(now):
            try:
                write(fd, packet)
            except OSError as error:
                self._not_written(error)
        if self._on_late:
            self._on_late((now - at) / 1e9)
        return 0 if (at := network.next_due()) is None else max(0, at - time.monotonic_ns())

    def _sleep(self, wait: int | None) -> None:
        # The timeout of select(2) has microsecond resolution; those of poll(2) and epoll_wait(2) have milliseconds.
        if wait is None:
            ready, _, _ = select.select((self._fd, self._wake), (), ())
        else:
            wake_at = time.monotonic_ns() + wait - self._lead
            ready, _, _ = select.select((self._fd, self._wake), (), (), (wait - self._lead) / 1e9)
            if not ready:
                late = min(MAX_LEAD, time.monotonic_ns() - wake_at + MIN_LEAD)
                self._lead += (late - self._lead) // 8
        if self._wake in ready:
            os.eventfd_read(self._wake)

    def _perform(self) -> None:
        while self._calls:
            future, function = self._calls.popleft()
            try:
                future.set_result(function())
            except Exception as error:  # pass the error to the caller, and continue to route packets
                future.set_exception(error)

    def _drain(self) -> None:
        stop_at = self._stop_at or 0
        while len(self.network) and time.monotonic_ns() < stop_at:
            wait = self._write_due()
            if wait:
                pause = min(wait, max(0, stop_at - time.monotonic_ns()))
                time.sleep(pause / 1e9)  # sleeps until the next packet is due

    def _not_written(self, error: OSError) -> None:
        self.write_errors += 1
        if self.write_errors & (self.write_errors - 1) == 0:  # log only the 1st, 2nd, 4th, 8th, … error
            logger.warning("write_failed", error=error.strerror, times=self.write_errors)
