"""Medians, shares and means with confidence intervals, and least-squares lines; no distribution is assumed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured value with its confidence interval, from *low* to *high*."""

    value: float
    low: float
    high: float
    #: Number of measurements.
    n: int = 1

    @classmethod
    def of(cls, values: Iterable[float]) -> "Estimate":
        """Return the median of *values* with its confidence interval of at least 95 %.

        The ends of the interval are order statistics (David and Nagaraja, "Order Statistics", section 7.1).  With fewer
        than six values no such interval reaches 95 %, so the interval spans all values.  If *values* is empty, the
        estimate is NaN.
        """
        ordered = sorted(values)
        n = len(ordered)
        if not n:
            return cls(math.nan, math.nan, math.nan, 0)
        k = _rank(n)
        return cls(median(ordered), ordered[k], ordered[n - 1 - k], n)

    @classmethod
    def least(cls, values: Iterable[float]) -> "Estimate":
        """Estimate a time by the smallest of *values*; the interval extends to their median.

        The smallest value is the best estimate because a busy machine can only add time.  If *values* is empty, the
        estimate is NaN.
        """
        ordered = sorted(values)
        return cls(ordered[0], ordered[0], median(ordered), len(ordered)) if ordered else cls.of(())

    @classmethod
    def share(cls, hits: int, of: int) -> "Estimate":
        """Return the share *hits* / *of* with its 95 % Wilson interval (E. B. Wilson, 1927)."""
        if of == 0:
            return cls(math.nan, math.nan, math.nan, 0)
        z, p = 1.96, hits / of
        centre = (p + z * z / (2 * of)) / (1 + z * z / of)
        half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
        return cls(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)), of)

    @classmethod
    def mean(cls, values: Sequence[float], batches: int = 10) -> "Estimate":
        """Return the mean of a correlated series with its 95 % confidence interval, by the method of batch means.

        Args:
            values: the series, in order of time.
            batches: number of equally long batches into which the series is divided.

        Returns:
            The estimate; with fewer than two values per batch, its interval spans all values.
        """
        if not values:
            return cls(math.nan, math.nan, math.nan, 0)
        size = len(values) // batches
        whole = sum(values) / len(values)
        if size < 2:
            return cls(whole, min(values), max(values), len(values))
        means = [sum(values[i * size : (i + 1) * size]) / size for i in range(batches)]
        centre = sum(means) / batches
        spread = math.sqrt(sum((each - centre) ** 2 for each in means) / (batches - 1) / batches)
        # 2.26 is the two-sided 95 % critical value of Student's t-distribution with nine degrees of freedom.
        return cls(whole, whole - 2.26 * spread, whole + 2.26 * spread, len(values))

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate in another unit: value and interval multiplied by *factor*."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor, self.n)


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line fitted to points."""

    slope: float
    intercept: float
    #: Half the width of the slope's 95 % confidence interval; NaN with fewer than three points.
    half: float

    @classmethod
    def through(cls, points: Sequence[tuple[float, float]]) -> "Line":
        """Return the least-squares line through *points*, given as (x, y).

        Raises:
            ValueError: the points have fewer than two different x values.
        """
        n = len(points)
        mean_x, mean_y = (sum(p[i] for p in points) / n for i in (0, 1)) if n else (0.0, 0.0)
        spread = sum((x - mean_x) ** 2 for x, _ in points)
        if spread == 0:
            raise ValueError("expected at least two different x values")
        slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
        intercept = mean_y - slope * mean_x
        rest = sum((y - slope * x - intercept) ** 2 for x, y in points)
        half = 1.96 * math.sqrt(rest / (n - 2) / spread) if n > 2 else math.nan
        return cls(slope, intercept, half)


def trials(tolerance: float) -> int:
    """Return how many trials are needed so that two standard errors of a measured share are at most *tolerance*."""
    return math.ceil((2 * 0.5 / tolerance) ** 2)


def number(value: float | None) -> str:
    """Format a number with four significant digits and a thousands separator; None and NaN become an en dash."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _rank(n: int) -> int:
    """Return k (from 0) so that the k-th smallest and k-th largest of *n* values bound the median's 95 % interval."""
    outside, k = 0.0, 0
    while k < n // 2:
        outside += 2 * math.comb(n, k) / 2**n
        if outside > 0.05:
            break
        k += 1
    return max(0, k - 1)
