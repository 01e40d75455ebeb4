"""Rates from counters that only grow, over the last minute or so.

Sans-IO: time is an argument in seconds.  A counter that fell belongs to a process that started anew: what it had
before is forgotten.
"""

from collections import deque


class Window:
    """The values that one counter, or several read together, had during the last *seconds*."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._points: deque[tuple[float, tuple[float, ...]]] = deque()

    def add(self, at: float, *values: float) -> None:
        """Note the *values* that the counters have at time *at*."""
        points = self._points
        if points and any(new < old for new, old in zip(values, points[-1][1], strict=True)):
            points.clear()
        points.append((at, values))
        # One point older than the window stays, so that the window is covered whole.
        while len(points) > 2 and points[1][0] <= at - self.seconds:
            points.popleft()

    def growth(self) -> tuple[float, tuple[float, ...]] | None:
        """Return the seconds covered and by how much each counter grew in them; None before there are two points."""
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
