"""Several runs with one seed: whether verdicts and injections agree, and what the medians say.

A check of one number with bounds is judged at the median of the valid runs; any other check has to hold in each of them.
Works on results alone, without files or clocks.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeVar

from experiments.result import Check, Event, Result, Row, Verdict

#: Verdicts of valid runs.
PROVING = frozenset({Verdict.PASS, Verdict.FAIL})
Named = TypeVar("Named", Row, Check)


@dataclass(frozen=True, slots=True)
class Spread:
    """One row over all runs; None for a run that lacks it."""

    name: str
    unit: str
    rows: tuple[Row | None, ...]

    @property
    def predicted(self) -> float | None:
        """Return the median prediction; predictions differ if they rest on something measured."""
        return _median([row.predicted for row in self.rows if row is not None])

    @property
    def values(self) -> list[float]:
        """Return the measured values of the runs that have one."""
        return [row.measured.value for row in self.rows if row is not None and row.measured.n]

    @property
    def median(self) -> float | None:
        """Return the median measurement."""
        return _median(self.values)

    @property
    def residuals(self) -> list[float | None]:
        """Return measured minus predicted for each run."""
        return [None if row is None or not row.measured.n else row.residual for row in self.rows]


@dataclass(frozen=True, slots=True)
class Judged:
    """One check over all valid runs."""

    name: str
    #: In the words of the first run; with bounds, the bounds' medians.
    expected: str
    #: Whether it held in each run; None: that run is invalid or lacks the check.
    held: tuple[bool | None, ...]
    ok: bool
    #: Median of the compared number; None: there is none, and the check has to hold in every run.
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """One injection, and the second at which each valid run made it."""

    text: str
    at: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Repeats:
    """Runs of one experiment with the same seed and parameters, in order."""

    results: tuple[Result, ...]
    #: How many were wanted; fewer were made if one was cut off.
    wanted: int

    @property
    def verdicts(self) -> list[Verdict]:
        """Return the verdict of each run."""
        return [each.verdict for each in self.results]

    @property
    def whole(self) -> bool:
        """Whether all wanted runs were completed."""
        return len(self.results) == self.wanted and not any(each.interrupted for each in self.results)

    @property
    def agree(self) -> bool:
        """Whether all verdicts are the same."""
        return len(set(self.verdicts)) == 1

    @property
    def valid(self) -> list[tuple[int, Result]]:
        """Return number (from 1) and result of each valid run."""
        return [(i, each) for i, each in enumerate(self.results, 1) if each.verdict in PROVING]

    @property
    def difference(self) -> str:
        """Describe the first injection of a valid run that differs from the first valid run's; "" if none does."""
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
        """Return the injections in order; those of the first valid run alone if runs differ."""
        made = [injections(result) for _, result in (self.valid[:1] if self.difference else self.valid)]
        return [Moment(same[0].text, tuple(each.at for each in same)) for same in zip(*made, strict=True)]

    @property
    def rows(self) -> list[Spread]:
        """Return all rows, in the order of their first appearance."""
        found = []
        for name, by_run in _by_name(self.results, lambda result: result.rows):
            unit = next(row.unit for row in by_run if row is not None)
            found.append(Spread(name, unit, tuple(by_run)))
        return found

    @property
    def checks(self) -> list[Judged]:
        """Return all checks of the valid runs."""
        valid = [result if result.verdict in PROVING else None for result in self.results]
        return [_judge(name, by_run) for name, by_run in _by_name(valid, lambda result: result.checks)]

    @property
    def verdict(self) -> Verdict:
        """Return the verdict at the medians; more than half of the runs have to be valid."""
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
        """Return in what way the runs are incomplete or differ."""
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
        """Return 4 for an incomplete series, 1 for runs that differ, and otherwise the exit code of each run."""
        if not self.whole:
            return Verdict.INVALID.exit_code
        if not self.agree or self.difference:
            return Verdict.FAIL.exit_code
        return self.verdicts[0].exit_code

    def as_json(self) -> dict[str, Any]:
        """Return everything, with the runs in full."""
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
    """Return what was injected, in order."""
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
    """Yield each name with what every run has under it; the second of one name in a run is matched with other seconds."""
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
