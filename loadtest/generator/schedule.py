"""Load schedules: a rate of requests that changes over time (a shape), and the intended start times of the requests.

A shape is piecewise linear, so the expected number of arrivals until a given time has a closed form, and so does the
inverse.  With even spacing, arrival *k* is at the time when the expected number reaches *k*.  With exponential
spacing, it is at the time when the expected number reaches the sum of *k* exponential random variables, which gives a
Poisson process (Brown et al., "The time-rescaling theorem", 2002).  No function here reads a clock.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Arrivals = Literal["even", "exponential"]


class ScheduleError(ValueError):
    """The given values do not form a valid shape or schedule."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A rate over time, linearly interpolated between points; before the first and after the last point it is 0."""

    #: Points (seconds, arrivals per second); two points at the same time make the rate jump.
    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        times = [at for at, _ in self.points]
        if len(self.points) < 2 or times[0] != 0 or any(b < a for a, b in pairwise(times)) or times[-1] <= 0:
            raise ScheduleError(f"expected points from second 0 on, in order, got {self.points}")
        if any(not 0 <= rate < math.inf for _, rate in self.points):
            raise ScheduleError(f"expected rates of 0 or more, got {self.points}")
        if math.inf in times and self.points[-1][1] != self.points[-2][1]:
            raise ScheduleError("expected a constant rate where the end is infinite")

    @property
    def seconds(self) -> float:
        """Duration of the shape in seconds; may be infinite."""
        return self.points[-1][0]

    def rate(self, at: float) -> float:
        """Return the rate *at* seconds after the start, in arrivals per second; at a jump, the rate after the jump."""
        if not 0 <= at < self.seconds:
            return 0.0
        left = bisect_right(self.points, at, key=lambda point: point[0]) - 1
        (t0, r0), (t1, r1) = self.points[left], self.points[left + 1]
        return r0 if r0 == r1 else r0 + (r1 - r0) * (at - t0) / (t1 - t0)

    def arrivals(self, until: float) -> float:
        """Return the expected number of arrivals in the first *until* seconds."""
        total = 0.0
        for (t0, r0), (t1, r1) in pairwise(self.points):
            if t0 < until and t0 < t1:
                end = min(t1, until)
                total += _area(t0, r0, end, r0 if r0 == r1 else r0 + (r1 - r0) * (end - t0) / (t1 - t0))
        return total

    def times_of(self, counts: Iterator[float]) -> Iterator[float]:
        """Yield, for each of *counts*, the time in seconds at which the expected number of arrivals reaches that count.

        The counts must be in ascending order.  The iterator ends when the shape ends.
        """
        passed = 0.0
        pieces = pairwise(self.points)
        (t0, r0), (t1, r1) = next(pieces)
        size = _area(t0, r0, t1, r1)
        for count in counts:
            while count >= passed + size:
                passed += size
                following = next(pieces, None)
                if following is None:
                    return
                (t0, r0), (t1, r1) = following
                size = _area(t0, r0, t1, r1)
            missing = count - passed
            if missing <= 0:
                yield t0
                continue
            slope = 0.0 if r0 == r1 else (r1 - r0) / (t1 - t0)
            # Positive root of r0 x + slope/2 x² = missing, in a form that is numerically stable for small slopes.
            yield t0 + 2 * missing / (r0 + math.sqrt(max(0.0, r0 * r0 + 2 * slope * missing)))


def _area(t0: float, r0: float, t1: float, r1: float) -> float:
    if t1 == t0 or r0 == r1 == 0:  # this includes a rate of 0 for an infinite time
        return 0.0
    return (r0 + r1) / 2 * (t1 - t0)


def constant(rate: float, seconds: float = math.inf) -> Shape:
    """Return a constant *rate* per second for *seconds*; by default, without end."""
    return Shape(((0, rate), (seconds, rate)))


def ramp(start: float, end: float, seconds: float) -> Shape:
    """Return a rate that changes linearly from *start* to *end* per second over *seconds*."""
    return Shape(((0, start), (seconds, end)))


def step(*levels: tuple[float, float]) -> Shape:
    """Return a sequence of constant rates; each level is (rate per second, seconds)."""
    points: list[tuple[float, float]] = []
    at = 0.0
    for rate, seconds in levels:
        points += [(at, rate), (at + seconds, rate)]
        at += seconds
    return Shape(tuple(points))


def spike(base: float, peak: float, at: float, length: float, seconds: float) -> Shape:
    """Return the rate *base* for *seconds* in total, with a spike to *peak* from second *at* for *length* seconds.

    Raises:
        ScheduleError: the spike is not within the first *seconds*.
    """
    if not 0 <= at <= at + length <= seconds:
        raise ScheduleError(f"expected a spike within {seconds:g} s, got {length:g} s from second {at:g} on")
    return step((base, at), (peak, length), (base, seconds - at - length))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The intended start times of a load, which depend only on shape, arrivals and seed."""

    shape: Shape
    #: "even": evenly spaced arrivals; "exponential": a Poisson process, which models independent users.
    arrivals: Arrivals = "even"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.arrivals not in {"even", "exponential"}:
            raise ScheduleError(f"expected arrivals 'even' or 'exponential', got {self.arrivals!r}")

    def times(self) -> Iterator[float]:
        """Yield the intended start of each request, in seconds since the start of the schedule."""
        return self.shape.times_of(self._counts())

    def _counts(self) -> Iterator[float]:
        if self.arrivals == "even":
            number = 0
            while True:
                yield float(number)
                number += 1
        draws = random.Random(self.seed)
        total = 0.0
        while True:
            total += draws.expovariate(1.0)
            yield total
