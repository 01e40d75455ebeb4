"""Conclusions of an experiment: result rows, checks, validity gates, facts and charts."""

from dataclasses import dataclass, field
from typing import Any

from experiments.chart import Chart, Ladder
from experiments.estimate import Estimate, number
from experiments.result import Check, Quantity, Result, Row


@dataclass(slots=True)
class Findings:
    """Adds the conclusions of an experiment to its result, and collects its charts."""

    result: Result
    charts: list[Chart | Ladder] = field(default_factory=list)

    def row(self, name: str, measured: Estimate | float, unit: str = "") -> Row:
        """Add a result row that compares a measurement with the prediction of the same name.

        Args:
            name: name of the row and of the prediction.
            measured: measured value; a plain number has no confidence interval.
            unit: unit of the value if there is no prediction; otherwise the prediction's unit is used.
        """
        predicted: Quantity | None = self.result.prediction.get(name)
        estimate = measured if isinstance(measured, Estimate) else Estimate(measured, measured, measured)
        row = Row(name, predicted.unit if predicted else unit, predicted.value if predicted else None, estimate)
        self.result.rows.append(row)
        return row

    def check(
        self,
        name: str,
        expected: str,
        got: str,
        ok: bool,
        *,
        value: float | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        """Add a check, which the experiment must pass for the verdict "pass".

        Args:
            name: name of the check.
            expected: the expected outcome, as text for the report.
            got: the actual outcome, as text for the report.
            ok: whether the check passes.
            value: the compared number, if it varies between runs; over several repeats, its median is checked instead.
            low: smallest value that passes; None: no lower bound.
            high: largest value that passes; None: no upper bound.
        """
        self.result.checks.append(Check(name, expected, got, ok, value, low, high))

    def check_near(self, row: Row, tolerance: float, *, absolute: bool = False, scattered: bool = False) -> None:
        """Check that the measurement of *row* is within *tolerance* of its prediction.

        Args:
            row: the row to check.
            tolerance: share of the prediction (0.05 is 5 %) or, with *absolute*, a value in the row's unit.
            absolute: whether *tolerance* is a value instead of a share.
            scattered: whether the measurement scatters on a busy machine.  Such a measurement makes the run invalid if
                it is outside the tolerance but its confidence interval overlaps the tolerance, because it then neither
                supports nor contradicts theory.
        """
        predicted, got = row.predicted or 0.0, row.measured.value
        room = tolerance if absolute else tolerance * abs(predicted)
        unit = f" {row.unit}" if row.unit else ""
        within = f"± {tolerance:g}{unit}" if absolute else f"± {tolerance:.0%}"
        # A tolerance of 0 requires the exact value in every run, not only as the median of repeats.
        bounds = {"value": got, "low": predicted - room, "high": predicted + room} if room else {}
        ok = abs(got - predicted) <= room
        if scattered:
            low, high = row.measured.low, row.measured.high
            decided = ok or high < predicted - room or low > predicted + room
            self.gate(
                f"scatter of {row.name}", "decides for or against theory", f"{number(low)} to {number(high)}", decided
            )
        self.check(row.name, f"{number(predicted)}{unit} {within}", f"{number(got)}{unit}", ok, **bounds)

    def check_factor(self, row: Row, low: float, high: float, *, chance: Estimate) -> None:
        """Check that the measurement of *row* is between two multiples of its prediction, apart from chance.

        Args:
            row: row with a prediction.
            low: smallest multiple of the prediction that passes.
            high: largest multiple of the prediction that passes.
            chance: estimate whose confidence interval shows how much the measurement varies by chance; half its width
                is subtracted from the lower bound and added to the upper one.
        """
        room, unit = (chance.high - chance.low) / 2, f" {row.unit}" if row.unit else ""
        least, most = low * (row.predicted or 0.0), high * (row.predicted or 0.0)
        self.check(
            row.name,
            f"{number(least)} to {number(most)}{unit}, ± {room:.2g}{unit} by chance",
            f"{number(row.measured.value)}{unit}",
            least - room <= row.measured.value <= most + room,
            value=row.measured.value,
            low=least - room,
            high=most + room,
        )

    def gate(self, name: str, expected: str, got: str, ok: bool) -> None:
        """Add a validity gate: a condition without which the run is invalid, whatever was measured."""
        self.result.validity.append(Check(name, expected, got, ok))

    def enough(self, what: str, got: int, needed: int) -> None:
        """Add a gate that requires at least *needed* samples, because with fewer samples a check could fail by chance.

        Args:
            what: name of the samples, in the plural.
            got: number of samples measured.
            needed: minimum number of samples.
        """
        self.gate(f"enough {what}", f">= {needed:,}", f"{got:,}", got >= needed)

    def fact(self, name: str, value: Any) -> None:
        """Add a measured value that has no prediction."""
        self.result.facts[name] = value

    def chart(self, chart: Chart | Ladder) -> None:
        """Add a chart or a ladder diagram to the report."""
        self.charts.append(chart)

    def leave_out(self, text: str) -> None:
        """Record that a part of the experiment was omitted on this machine; *text* names the part and the reason."""
        self.result.left_out.append(text)
