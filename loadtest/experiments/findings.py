"""What an experiment concludes: rows, checks, validity gates, facts and charts."""

from dataclasses import dataclass, field
from typing import Any

from experiments.chart import Chart
from experiments.estimate import Estimate, number
from experiments.result import Check, Quantity, Result, Row


@dataclass(slots=True)
class Findings:
    """Collects conclusions into a result."""

    result: Result
    charts: list[Chart] = field(default_factory=list)

    def row(self, name: str, measured: Estimate | float, unit: str = "") -> Row:
        """Add a measurement next to the prediction of the same name, whose unit it takes."""
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
        """Add a condition of the verdict.

        Args:
            name: what is checked.
            expected: in words.
            got: in words.
            ok: whether it holds.
            value: the number that was compared, if it varies from run to run: repeats judge its median.
            low: smallest value that passes.
            high: largest value that passes.
        """
        self.result.checks.append(Check(name, expected, got, ok, value, low, high))

    def check_near(self, row: Row, tolerance: float, *, absolute: bool = False) -> None:
        """Check that a row's measurement is within *tolerance* of its prediction (relative unless *absolute*)."""
        predicted, got = row.predicted or 0.0, row.measured.value
        room = tolerance if absolute else tolerance * abs(predicted)
        unit = f" {row.unit}" if row.unit else ""
        within = f"± {tolerance:g}{unit}" if absolute else f"± {tolerance:.0%}"
        # Without tolerance the value is exact and has to be right in every run, not only at the median.
        bounds = {"value": got, "low": predicted - room, "high": predicted + room} if room else {}
        ok = abs(got - predicted) <= room
        self.check(row.name, f"{number(predicted)}{unit} {within}", f"{number(got)}{unit}", ok, **bounds)

    def gate(self, name: str, expected: str, got: str, ok: bool) -> None:
        """Add a condition without which the measurement proves nothing."""
        self.result.validity.append(Check(name, expected, got, ok))

    def enough(self, what: str, got: int, needed: int) -> None:
        """Require at least *needed* of *what*, in the plural: fewer could fail a check by chance."""
        self.gate(f"enough {what}", f">= {needed:,}", f"{got:,}", got >= needed)

    def fact(self, name: str, value: Any) -> None:
        """Add a measurement that has no prediction."""
        self.result.facts[name] = value

    def chart(self, chart: Chart) -> None:
        """Add a picture."""
        self.charts.append(chart)

    def leave_out(self, text: str) -> None:
        """Name a part that this machine cannot show, and why."""
        self.result.left_out.append(text)
