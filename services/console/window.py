"""Rates of counters over a sliding window.

Sans-IO: time is an argument in seconds.  A counter that decreased belongs to a process that restarted, so its earlier
values are discarded.
"""

from collections import deque


class Window:
    """The values of one counter, or of several that are read together, during the last *seconds*."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._points: deque[tuple[float, tuple[float, ...]]] = deque()

    def add(self, at: float, *values: float) -> None:
        """Record the *values* of the counters at time *at*."""
        points = self._points
        if points and any(new < old for new, old in zip(values, points[-1][1], strict=True)):
            points.clear()
        points.append((at, values))
        # Keep one point older than the window, so that the points cover all of it.
        while len(points) > 2 and points[1][0] <= at - self.seconds:
            points.popleft()

    def growth(self) -> tuple[float, tuple[float, ...]] | None:
        """Return the seconds covered and the growth of each counter; None before there are two points."""
        if len(self._points) < 2:
            return None
        (began, first), (ended, last) = self._points[0], self._points[-1]
        if ended <= began:
            return None
        return ended - began, tuple(new - old for new, old in zip(last, first, strict=True))

    def rates(self) -> tuple[float, ...] | None:
        """Return the growth of each counter per second; None before there are two points."""
        grown = self.growth()
        return None if grown is None else tuple(value / grown[0] for value in grown[1])
