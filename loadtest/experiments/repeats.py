"""Evaluates several runs of one experiment with the same seed: agreement of verdicts and injections, and medians.

A check that compares one number with bounds is applied to the median of the valid runs; every other check has to pass
in each valid run.  This module works on results only and uses neither files nor clocks.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

from experiments.result import Check, Event, Result, Row, Verdict

#: Verdicts that only a valid run can have.
PROVING = frozenset({Verdict.PASS, Verdict.FAIL})
Named = TypeVar("Named", Row, Check)


@dataclass(frozen=True, slots=True)
class Spread:
    """The rows with the same name from all runs, in the order of the runs; None for a run without such a row."""

    name: str
    unit: str
    rows: tuple[Row | None, ...]

    @property
    def predicted(self) -> float | None:
        """Return the median prediction; predictions differ between runs if they are computed from a measured value."""
        return _median([row.predicted for row in self.rows if row is not None])

    @property
    def values(self) -> list[float]:
        """Return the measured values; runs without this row or without measurements are omitted."""
        return [row.measured.value for row in self.rows if row is not None and row.measured.n]

    @property
    def median(self) -> float | None:
        """Return the median of the measured values; None if there are none."""
        return _median(self.values)

    @property
    def residuals(self) -> list[float | None]:
        """Return measured minus predicted value for each run; None for a run that lacks either."""
        return [None if row is None or not row.measured.n else row.residual for row in self.rows]


@dataclass(frozen=True, slots=True)
class Judged:
    """One check, evaluated over all valid runs."""

    name: str
    #: Expected outcome as text: the medians of the bounds, or the first valid run's text if there are no bounds.
    expected: str
    #: Whether the check passed in each run; None if that run is invalid or lacks the check.
    held: tuple[bool | None, ...]
    ok: bool
    #: Median of the compared number; None if the check compares no number and therefore has to pass in every run.
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """One injection, and its time in each valid run, in seconds since that run began."""

    text: str
    at: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Runs of one experiment with the same seed and parameters, in order."""

    results: tuple[Result, ...]
    #: Requested number of runs; `results` has fewer if a run was interrupted.
    wanted: int

    @property
    def verdicts(self) -> list[Verdict]:
        """Return the verdict of each run."""
        return [each.verdict for each in self.results]

    @property
    def whole(self) -> bool:
        """Whether all requested runs were completed."""
        return len(self.results) == self.wanted and not any(each.interrupted for each in self.results)

    @property
    def agree(self) -> bool:
        """Whether all verdicts are the same."""
        return len(set(self.verdicts)) == 1

    @property
    def valid(self) -> list[tuple[int, Result]]:
        """Return the number (from 1) and the result of each valid run."""
        return [(i, each) for i, each in enumerate(self.results, 1) if each.verdict in PROVING]

    @property
    def difference(self) -> str:
        """Describe the first difference between the injections of the valid runs; "" if there is none."""
        if not self.valid:
            return ""
        (first, base), *others = self.valid
        wanted = [each.text for each in injections(base)]
        for number, result in others:
            got = [each.text for each in injections(result)]
            for i in range(max(len(wanted), len(got))):
                one, other = (f"“{texts[i]}”" if i < len(texts) else "no more" for texts in (wanted, got))
                if one != other:
                    return f"injection {i + 1} of run {number}: expected {one} as in run {first}, got {other}"
        return ""

    @property
    def injections(self) -> list[Moment]:
        """Return the injections in order; if the runs differ, only those of the first valid run."""
        made = [injections(result) for _, result in (self.valid[:1] if self.difference else self.valid)]
        return [Moment(same[0].text, tuple(each.at for each in same)) for same in zip(*made, strict=True)]

    @property
    def rows(self) -> list[Spread]:
        """Return all rows, in order of first appearance."""
        found = []
        for name, by_run in _by_name(self.results, lambda result: result.rows):
            unit = next(row.unit for row in by_run if row is not None)
            found.append(Spread(name, unit, tuple(by_run)))
        return found

    @property
    def checks(self) -> list[Judged]:
        """Return all checks of the valid runs, in order of first appearance."""
        valid = [result if result.verdict in PROVING else None for result in self.results]
        return [_judge(name, by_run) for name, by_run in _by_name(valid, lambda result: result.checks)]

    @property
    def verdict(self) -> Verdict:
        """Return the overall verdict; it is invalid unless more than half of the requested runs are valid."""
        if self.results and all(each is Verdict.SKIPPED for each in self.verdicts):
            return Verdict.SKIPPED
        if 2 * len(self.valid) <= self.wanted:
            return Verdict.INVALID
        failed = {each.name for each in self.checks if not each.ok}
        must = set(self.results[0].control_fails)
        if failed and self.results[0].control and must and not failed & must:
            return Verdict.INVALID
        return Verdict.FAIL if failed else Verdict.PASS

    @property
    def reasons(self) -> list[str]:
        """Return one line for each reason why the series is incomplete or its runs differ."""
        said = []
        if not self.whole:
            cut = next((each.interrupted for each in self.results if each.interrupted), "")
            said.append(f"cut off after {len(self.results)} of {self.wanted} runs{f': {cut}' if cut else ''}")
        if not self.agree:
            said.append(f"verdicts differ: {', '.join(self.verdicts)}")
        if self.difference:
            said.append(f"injections differ: {self.difference}")
        return said

    def exit_code(self) -> int:
        """Return 4 if the series is incomplete, 1 if its runs differ, and otherwise the exit code of their verdict."""
        if not self.whole:
            return Verdict.INVALID.exit_code
        if not self.agree or self.difference:
            return Verdict.FAIL.exit_code
        return self.verdicts[0].exit_code

    def as_json(self) -> dict[str, Any]:
        """Return the evaluation and the complete result of each run, as JSON-compatible data."""
        return {
            "name": self.results[0].name,
            "times": self.wanted,
            "seed": self.results[0].seed,
            "verdict": self.verdict.value,
            "verdicts": [each.value for each in self.verdicts],
            "verdicts_agree": self.agree,
            "injections_identical": not self.difference,
            "first_difference": self.difference,
            "reasons": self.reasons,
            "injections": [{"text": each.text, "at_s": [round(at, 3) for at in each.at]} for each in self.injections],
            "rows": [
                {
                    "name": each.name,
                    "unit": each.unit,
                    "predicted": each.predicted,
                    "median": each.median,
                    "smallest": min(each.values, default=None),
                    "largest": max(each.values, default=None),
                    "residuals": each.residuals,
                }
                for each in self.rows
            ],
            "checks": [
                {"name": c.name, "expected": c.expected, "held": c.held, "ok": c.ok, "median": c.value}
                for c in self.checks
            ],
            "runs": [each.as_json() for each in self.results],
        }


def injections(result: Result) -> list[Event]:
    """Return the injections of a run, in order."""
    return [each for each in result.events if each.kind == "injection"]


def _judge(name: str, by_run: list[Check | None]) -> Judged:
    made = [each for each in by_run if each is not None]
    held = tuple(None if each is None else each.ok for each in by_run)
    if any(each.value is None for each in made):
        return Judged(name, made[0].expected, held, all(each.ok for each in made))
    value = median(each.value for each in made if each.value is not None)
    low, high = (_median([getattr(each, end) for each in made]) for end in ("low", "high"))
    ok = (low is None or value >= low) and (high is None or value <= high)
    return Judged(name, _between(low, high), held, ok, value, low, high)


def _between(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"<= {high:.4g}" if high is not None else f">= {low:.4g}" if low is not None else "anything"
    return f"{low:.4g} to {high:.4g}"


def _by_name(
    results: Sequence[Result | None], of: Callable[[Result], list[Named]]
) -> Iterator[tuple[str, list[Named | None]]]:
    """Yield each name with the row or check of that name in each run, or None for a run without one.

    If a run has several rows or checks with the same name, the second is matched with the second of the other runs, and
    so on.
    """
    tables = []
    for result in results:
        count: Counter[str] = Counter()
        table: dict[tuple[str, int], Named] = {}
        for each in of(result) if result is not None else []:
            table[each.name, count[each.name]] = each
            count[each.name] += 1
        tables.append(table)
    for key in dict.fromkeys(key for table in tables for key in table):
        yield key[0], [table.get(key) for table in tables]


def _median(values: Sequence[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return median(known) if known else None
