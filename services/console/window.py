"""Rates of counters over a sliding window.

Sans-IO: time is an argument in seconds.  If a counter decreases, its process has restarted, so the earlier values are
discarded.
"""

from collections import deque


class Window:
    """Values during the last *seconds* of one counter, or of several counters that are read together."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._points: deque[tuple[float, tuple[float, ...]]] = deque()

    def add(self, at: float, *values: float) -> None:
        """Record the *values* of all counters at time *at*."""
        points = self._points
        if points and any(new < old for new, old in zip(values, points[-1][1], strict=True)):
            points.clear()
        points.append((at, values))
        # Keep one point older than the window, so that the points span the whole window.
        while len(points) > 2 and points[1][0] <= at - self.seconds:
            points.popleft()

    def growth(self) -> tuple[float, tuple[float, ...]] | None:
        """Return the time span in seconds and the growth of each counter; None if there are fewer than two points."""
        if len(self._points) < 2:
            return None
        (began, first), (ended, last) = self._points[0], self._points[-1]
        if ended <= began:
            return None
        return ended - began, tuple(new - old for new, old in zip(last, first, strict=True))

    def rates(self) -> tuple[float, ...] | None:
        """Return the growth per second of each counter; None if there are fewer than two points."""
        grown = self.growth()
        return None if grown is None else tuple(value / grown[0] for value in grown[1])
