"""How fast a client sends a request body: the longest silence, and the average rate over a window.

No I/O. Time is an argument, in seconds on a monotonic clock.
"""

from edge.timeouts import Timeouts


class BodyRate:
    """Limits on one body; a body that the edge does not read, because the origin is slow, is not held against it."""

    __slots__ = ("_bytes", "_heard", "_limits", "_window")

    def __init__(self, limits: Timeouts, now: float) -> None:
        """Begin to measure at *now*."""
        self._limits = limits
        #: Time of the last bytes; start of the window, and bytes received in it.
        self._heard = self._window = now
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
        """Record that the edge reads again."""
        self._heard = now

    def stalls(self, now: float, *, reading: bool) -> str:
        """Return why the body arrives too slowly, or an empty string; *reading* says whether the edge reads it."""
        limits = self._limits
        if not reading:
            self._window, self._bytes, self._heard = now, 0, now
        if now - self._heard >= limits.body:
            return f"no whole request body: nothing came for {limits.body:g} s"
        if now - self._window >= limits.rate_window:
            rate = self._bytes / (now - self._window)
            self._window, self._bytes = now, 0
            if rate < limits.min_rate:
                return f"expected a body at {limits.min_rate:g} bytes/s, got {rate:.0f}"
        return ""
