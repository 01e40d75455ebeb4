"""Limits on slow request bodies: maximum time without data, and minimum average rate over a time window.

No I/O. Time is an argument, in seconds on a monotonic clock.
"""

from edge.timeouts import Timeouts


class BodyRate:
    """Arrival rate of one request body; no limit applies while a slow origin makes the edge pause reading."""

    __slots__ = ("_bytes", "_heard", "_limits", "_window")

    def __init__(self, limits: Timeouts, now: float) -> None:
        """Start measuring at *now*; *limits* are the time-outs and the minimum rate."""
        self._limits = limits
        #: Time at which data was last received, and start of the rate window.
        self._heard = self._window = now
        #: Bytes received in the rate window.
        self._bytes = 0

    @property
    def deadline(self) -> float:
        """Time of the next check."""
        return min(self._heard + self._limits.body, self._window + self._limits.rate_window)

    def received(self, count: int, now: float) -> None:
        """Record *count* bytes of the body."""
        self._heard = now
        self._bytes += count

    def resumed(self, now: float) -> None:
        """Record that the edge has resumed reading the body."""
        self._heard = now

    def stalls(self, now: float, *, reading: bool) -> str:
        """Return why the body is too slow, or an empty string; *reading* is false while the edge has paused reading."""
        limits = self._limits
        if not reading:
            self._window, self._bytes, self._heard = now, 0, now
        if now - self._heard >= limits.body:
            return f"expected more of the request body, got no data for {limits.body:g} s"
        if now - self._window >= limits.rate_window:
            rate = self._bytes / (now - self._window)
            self._window, self._bytes = now, 0
            if rate < limits.min_rate:
                return f"expected a body at {limits.min_rate:g} bytes/s, got {rate:.0f}"
        return ""
