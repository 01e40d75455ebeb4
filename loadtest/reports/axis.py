"""Chart axes: their range, the position of a value, and ticks at round values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from experiments.chart import Bars, Chart, Curve, Dots, Panel


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from *low* to *high*, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def across(cls, chart: Chart) -> Self:
        """Return the x axis of *chart*, which all its panels share."""
        if chart.categories:
            return cls(-0.5, len(chart.categories) - 0.5, chart.log)
        values = list(_xs(chart.panels))
        if chart.log:
            values = [each for each in values if each > 0] or [1.0, 10.0]
        low = min(values, default=0.0) if chart.low is None else chart.low
        high = max(values, default=1.0) if chart.high is None else chart.high
        return cls(low, high if high > low else low + 1, chart.log)

    @classmethod
    def upwards(cls, panel: Panel) -> Self:
        """Return the y axis of a panel that contains marks."""
        lows, tops = _ends(panel)
        high = panel.high if panel.high is not None else max(tops, default=1.0) * 1.05
        if panel.log:
            positive = [each for each in (*lows, *tops) if each > 0]
            low = panel.low or min(positive, default=0.1) * 0.8
            return cls(low, max(high, low * 10), log=True)
        low = min([panel.low, *lows] if panel.low is not None else lows, default=0.0)
        return cls(low, high if high > low else low + 1)

    def place(self, value: float, length: float = 1.0) -> float:
        """Return the position of *value* on an axis of the given *length*: 0 at `low`, *length* at `high`.

        Values out of range are extrapolated, except that a logarithmic axis places values below `low` at 0.
        """
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return length * (value - low) / (high - low)

    def ticks(self, about: int) -> list[float]:
        """Return approximately *about* round values for ticks; a logarithmic axis ignores *about*."""
        low, high = self.low, self.high
        if self.log:
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            fine: Sequence[float] = (1, 2, 5) if len(decades) <= 4 else (1,)
            if high < 10 * low:  # the axis spans less than one decade
                fine = (1, 1.5, 2, 3, 4, 5, 6, 8)
            return [f * 10**d for d in decades for f in fine if low * 0.999 <= f * 10**d <= high * 1.001]
        raw = (high - low) / max(1, about)
        power = 10 ** math.floor(math.log10(raw))
        step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= raw * 0.999)
        first = math.ceil(low / step - 1e-9)
        return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _xs(panels: Iterable[Panel]) -> Iterable[float]:
    for panel in panels:
        for lane in panel.lanes:
            for span in lane.spans:
                yield from (span.begin, span.end)
        for mark in panel.marks:
            if isinstance(mark, Bars):
                for begin, end, _ in mark.bars:
                    yield from (begin, end)
            else:
                yield from (point[0] for point in mark.points)


def _ends(panel: Panel) -> tuple[list[float], list[float]]:
    """Return the lower ends and the upper ends of all marks, as y values; stacked bars count as one mark."""
    lows: list[float] = []
    tops: list[float] = []
    stack: dict[tuple[float, float], float] = {}
    for mark in panel.marks:
        match mark:
            case Bars():
                for begin, end, height in mark.bars:
                    stack[begin, end] = stack.get((begin, end), 0.0) + height
            case Dots():
                lows.extend(low for _, _, low, _ in mark.points if not math.isnan(low))
                tops.extend(high for _, _, _, high in mark.points if not math.isnan(high))
            case Curve():
                values = [value for _, value in mark.points if not math.isnan(value)]
                lows.extend(values)
                tops.extend(values)
    return lows, [*tops, *stack.values()]
