"""An exact histogram with microsecond resolution: merging is lossless, and percentiles are measured values."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping


class Histogram:
    """Durations, rounded to whole microseconds and counted by value."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        """Create a histogram of the given durations, in seconds."""
        self._counts: Counter[int] = Counter()
        for each in seconds:
            self.add(each)

    def __len__(self) -> int:
        return self._counts.total()

    def __repr__(self) -> str:
        return f"<Histogram n={len(self)} p50={self.percentile(50) * 1e3:.3f}ms p99={self.percentile(99) * 1e3:.3f}ms>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self._counts == other._counts

    __hash__ = None  # type: ignore[assignment]  # mutable, so not hashable

    def add(self, seconds: float) -> None:
        """Count one duration, in seconds."""
        self._counts[round(seconds * 1e6)] += 1

    def merge(self, other: "Histogram") -> None:
        """Add the counts of *other*."""
        self._counts.update(other._counts)  # noqa: SLF001 - an instance of the same class

    def percentile(self, percent: float) -> float:
        """Return a percentile in seconds, by the nearest-rank method; NaN if the histogram is empty."""
        total = len(self)
        if not total:
            return math.nan
        rank = max(1, math.ceil(round(percent * total / 100, 6)))  # rounding makes 99.9 % of 1,000 exactly 999
        for value in sorted(self._counts):
            rank -= self._counts[value]
            if rank <= 0:
                return value / 1e6
        raise AssertionError("unreachable: the ranks add up to the total")

    @property
    def mean(self) -> float:
        """The mean in seconds; NaN if the histogram is empty."""
        total = len(self)
        return sum(value * count for value, count in self._counts.items()) / total / 1e6 if total else math.nan

    @property
    def smallest(self) -> float:
        """The smallest value in seconds; NaN if the histogram is empty."""
        return min(self._counts) / 1e6 if self._counts else math.nan

    @property
    def largest(self) -> float:
        """The largest value in seconds; NaN if the histogram is empty."""
        return max(self._counts) / 1e6 if self._counts else math.nan

    def as_json(self) -> dict[str, int]:
        """Return the counts by value; the keys are microseconds as text."""
        return {str(value): count for value, count in sorted(self._counts.items())}

    @classmethod
    def from_json(cls, counts: Mapping[str, int]) -> "Histogram":
        """Return the histogram that `as_json` encoded."""
        made = cls()
        made._counts.update({int(value): count for value, count in counts.items()})
        return made
