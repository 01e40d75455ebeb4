"""When requests should begin: a rate that changes over time, and arrivals drawn from it.

Pure functions of time.  A shape is a piecewise linear rate, so the expected number of arrivals until *t* has a closed form,
and so has its inverse.  Arrival *k* is at the time when that number reaches *k* (even spacing) or the sum of *k* exponential
draws (a Poisson process by time rescaling: Brown et al., "The time-rescaling theorem", 2002).
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
    """The values do not make a shape or a schedule."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A rate over time: straight lines between points, and 0 outside them."""

    #: (seconds, arrivals per second); two points at the same time are a jump.
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
        """Duration in seconds."""
        return self.points[-1][0]

    def rate(self, at: float) -> float:
        """Return the rate at *at* seconds; at a jump, the rate after it."""
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
        """Yield the times at which the expected arrivals reach each of *counts*, which must increase; end with the shape."""
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
            # The root of r0 x + slope/2 x^2 = missing, in a form that stays accurate for small slopes.
            yield t0 + 2 * missing / (r0 + math.sqrt(max(0.0, r0 * r0 + 2 * slope * missing)))


def _area(t0: float, r0: float, t1: float, r1: float) -> float:
    if t1 == t0 or r0 == r1 == 0:  # including infinite silence
        return 0.0
    return (r0 + r1) / 2 * (t1 - t0)


def constant(rate: float, seconds: float = math.inf) -> Shape:
    """Return *rate* per second for *seconds*, or without end."""
    return Shape(((0, rate), (seconds, rate)))


def ramp(start: float, end: float, seconds: float) -> Shape:
    """Return a rate that changes linearly from *start* to *end*."""
    return Shape(((0, start), (seconds, end)))


def step(*levels: tuple[float, float]) -> Shape:
    """Return constant levels in sequence, each (rate, seconds)."""
    points: list[tuple[float, float]] = []
    at = 0.0
    for rate, seconds in levels:
        points += [(at, rate), (at + seconds, rate)]
        at += seconds
    return Shape(tuple(points))


def spike(base: float, peak: float, at: float, length: float, seconds: float) -> Shape:
    """Return *base* for *seconds* in total, except *peak* for *length* seconds from second *at*."""
    if not 0 <= at <= at + length <= seconds:
        raise ScheduleError(f"expected a spike within {seconds:g} s, got {length:g} s from second {at:g} on")
    return step((base, at), (peak, length), (base, seconds - at - length))


@dataclass(frozen=True, slots=True)
class Schedule:
    """Intended start times; equal shape, arrivals and seed give equal times."""

    shape: Shape
    #: Evenly spaced, or a Poisson process, as with independent users.
    arrivals: Arrivals = "even"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.arrivals not in {"even", "exponential"}:
            raise ScheduleError(f"expected arrivals 'even' or 'exponential', got {self.arrivals!r}")

    def times(self) -> Iterator[float]:
        """Yield the intended start of each request in seconds."""
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
