"""Computes a plan: the range of values of each row over the ranges of all inputs and costs."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from planner.calibration import Calibration, Costs
from planner.inputs import Inputs, InputsError, Key, Tls, contradiction, read
from planner.quantities import Range, duration, significant
from planner.rows import TOPICS, Row, Topic

#: Maximum number of inputs given as ranges; it is limited because every combination of their ends and middles is
#: computed.
MAX_RANGES = 4
#: Half-width of a 95 % interval, in standard deviations.
Z = 1.96


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row and the range of its values."""

    topic: Topic
    row: Row
    #: Range of the row's values over the input ranges; None if the model has no value for any combination of inputs.
    value: Range | None
    #: Whether the model has no value for some combinations of inputs (for example, because ports never run out).
    partly_none: bool

    def text(self) -> str:
        """Return the value as text with its unit."""
        if self.value is None:
            return self.row.none
        low, high = self.value.low, self.value.high
        text = _format(low, self.row.unit) if low == high else _interval(low, high, self.row.unit)
        return text + (f", or {self.row.none}" if self.partly_none else "")

    def as_json(self) -> dict[str, Any]:
        """Return the row as a JSON object; durations are in seconds, shares from 0 to 1."""
        ends = None if self.value is None else [self.value.low, self.value.high]
        return {
            "topic": self.topic.name, "key": self.row.key, "what": self.row.what, "value": ends,
            "unit": {"duration": "s", "share": "1"}.get(self.row.unit, self.row.unit), "text": self.text(),
            "formula": self.row.formula, "symbols": self.topic.symbols,
            "assumes": self.topic.assumes, "verify": verify_command(self.topic),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """All rows for one set of inputs."""

    inputs: dict[str, Range]
    choices: dict[str, Any]
    rows: tuple[PlannedRow, ...]
    #: Inputs at the lower ends of all ranges.
    low: Inputs
    #: Inputs at the upper ends of all ranges.
    high: Inputs

    def row(self, key: str) -> PlannedRow:
        """Return the row with the key *key*."""
        return next(each for each in self.rows if each.row.key == key)

    def as_json(self) -> dict[str, Any]:
        """Return inputs and rows as a JSON object."""
        inputs = {name: list(value.ends) if len(value.ends) > 1 else value.low for name, value in self.inputs.items()}
        return {"inputs": inputs | self.choices, "rows": [each.as_json() for each in self.rows]}


def plan(
    given: Mapping[str, str],
    calibration: Calibration,
    *,
    tls: Tls = "1.3",
    key: Key | None = None,
    pool: int | None = None,
) -> Plan:
    """Apply every model to the *given* inputs.

    Args:
        given: texts, keyed by input name (see `planner.inputs.INPUTS`); a text may be a range.
        calibration: costs of this machine.
        tls: version of TLS between client and edge.
        key: type of the server's key; None for ECDSA.
        pool: connections in the pool; None to plan the size.

    Raises:
        InputsError: an input is not valid, or inputs contradict each other.
    """
    ranges = read(given)
    wide = [name for name, value in ranges.items() if len(value.ends) > 1]
    if len(wide) > MAX_RANGES:
        raise InputsError(f"expected at most {MAX_RANGES} ranges, got {len(wide)}: {', '.join(wide)}")
    choices: dict[str, Any] = {"tls": tls, "key": key or "ecdsa", "pool": pool}
    blamed = {name for name in given if given[name]} | ({"key"} if key else set())
    points = [
        Inputs(**(choices | dict(zip(ranges, values, strict=True))))
        for values in itertools.product(*map(_samples, ranges.values()))
    ]
    for point in points:
        if (why := contradiction(point, dict.fromkeys(blamed))) is not None:
            raise InputsError(why)
    costs = calibration.costs(tls, key or "ecdsa")
    corners = [
        Costs(**dict(zip(costs, ends, strict=True))) for ends in itertools.product(*(r.ends for r in costs.values()))
    ]
    rows = tuple(_planned(topic, row, points, corners) for topic in TOPICS for row in topic.rows)
    return Plan(ranges, choices, rows, points[0], points[-1])


def verify_command(topic: Topic) -> str:
    """Return the command that checks the models of *topic* against the lab."""
    return f"firstbyte {' '.join(topic.verify)} --quick"


def _planned(topic: Topic, row: Row, points: list[Inputs], corners: list[Costs]) -> PlannedRow:
    values = [row.value(point, costs) for point in points for costs in corners]
    some = [each for each in values if each is not None]
    if not some:
        return PlannedRow(topic, row, None, partly_none=True)
    low, high = min(some), max(some)
    if row.poisson:
        low, high = max(0.0, low - Z * math.sqrt(low)), high + Z * math.sqrt(high)
    return PlannedRow(topic, row, Range(low, high), partly_none=len(some) < len(values))


def _samples(value: Range) -> tuple[float, ...]:
    """Return both ends and the middle of a range; a few models have their maximum inside the range."""
    return value.ends if value.low == value.high else (value.low, (value.low + value.high) / 2, value.high)


def _interval(low: float, high: float, unit: str) -> str:
    """Format an interval; if both ends have the same unit, it is written only once."""
    first, second = _format(low, unit), _format(high, unit)
    number, _, its_unit = first.partition(" ")
    if first == second:
        return first
    return f"{number if second.partition(' ')[2] == its_unit else first} to {second}"


def _format(value: float, unit: str) -> str:
    match unit:
        case "duration":
            return duration(value)
        case "share":
            return f"{significant(100 * value)} %" if value >= 5e-5 or not value else "below 0.01 %"
        case "bytes":
            size, suffix = (1e6, "MB") if value >= 1e6 else (1e3, "kB")
            return f"{significant(value / size)} {suffix}"
        case "bit/s":
            return f"{significant(value / 1e6)} Mbit/s"
        case _:
            number = f"{value:,.0f}" if value % 1 == 0 and value < 1e6 else significant(value)
            return f"{number} {unit}"
