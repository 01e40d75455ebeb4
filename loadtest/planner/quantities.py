"""Quantities with units (``30ms``, ``10M``, ``90%``, ``50kB``) and ranges of them (``20ms..40ms``)."""

import math
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["count", "rate", "duration", "share", "bytes"]

_DURATIONS = {
    "": 1.0,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86_400.0,
    "w": 604_800.0,
}
_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {"": 1.0, "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 1024.0, "MiB": 1024.0**2, "GiB": 1024.0**3}
_SUFFIXES: dict[Kind, dict[str, float]] = {
    "count": _COUNTS, "rate": _COUNTS, "duration": _DURATIONS, "share": {"": 1.0, "%": 0.01}, "bytes": _BYTES,
}  # fmt: skip
_EXAMPLES: dict[Kind, str] = {
    "count": "a count such as 4 or 10M",
    "rate": "a rate per second such as 20k",
    "duration": "a duration such as 30ms, 60 (seconds) or 47d",
    "share": "a share such as 0.9 or 90%",
    "bytes": "a size such as 50kB",
}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:e\d+)?)([A-Za-z%]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Range:
    """All values from *low* to *high*, inclusive."""

    low: float
    high: float

    @property
    def ends(self) -> tuple[float, ...]:
        """The distinct ends of the range: one for a single value, otherwise two."""
        return (self.low,) if self.low == self.high else (self.low, self.high)


def parse(text: str, kind: Kind) -> Range:
    """Parse one value or ``LOW..HIGH``; durations are returned in seconds, sizes in bytes.

    Raises:
        ValueError: *text* is not a quantity of this kind; the message says what was expected.
    """
    low, dots, high = text.partition("..")
    found = Range(_value(low, kind, text), _value(high if dots else low, kind, text))
    if found.low > found.high:
        raise ValueError(f"expected LOW..HIGH, got {text!r}, whose first value is the larger one")
    return found


def _value(text: str, kind: Kind, whole: str) -> float:
    match = _NUMBER.fullmatch(text.strip())
    suffixes = _SUFFIXES[kind]
    if match is None or match[2] not in suffixes:
        raise ValueError(f"expected {_EXAMPLES[kind]}, or a range LOW..HIGH; got {whole!r}")
    value = float(match[1]) * suffixes[match[2]]
    if not math.isfinite(value):
        raise ValueError(f"expected {_EXAMPLES[kind]}, got {whole!r}, which is too large")
    return value


def duration(seconds: float) -> str:
    """Format a duration with a suitable unit, such as ``1.5 ms`` or ``47 d``."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= 2 * size or (size <= 1 and seconds >= size):
            return f"{significant(seconds / size)} {unit}"
    return f"{significant(seconds * 1e6)} µs" if seconds else "0 s"


def significant(value: float) -> str:
    """Format a number with three significant digits, and with an SI suffix from one million."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "unlimited"
    for size, suffix in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{significant(value / size)} {suffix}"
    rounded = float(f"{value:.3g}")
    digits = max(0, 2 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:,.{digits}f}"
