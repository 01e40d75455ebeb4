"""Parser for the Prometheus text exposition format 0.0.4.  It returns samples and skips HELP, TYPE and timestamps.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from console.hosts import ConsoleError

#: Values at or above this limit are ignored: no real count or size is that large, and sums of the rest stay finite.
LARGEST = 2.0**64

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(,|(?=\}))')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", '"': '"', "\\": "\\"}


class ExpositionError(ConsoleError):
    """A line of the response is not a valid sample."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Series:
    """One sample: metric name, labels and value."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(frozen=True, slots=True)
class Scrape:
    """All samples of one /metrics response."""

    series: tuple[Series, ...] = ()

    def each(self, name: str, **labels: str) -> Iterator[Series]:
        """Yield all samples with the metric name *name* and at least the given *labels*."""
        wanted = set(labels.items())
        for series in self.series:
            if series.name == name and wanted <= set(series.labels):
                yield series

    def total(self, name: str, **labels: str) -> float | None:
        """Return the sum of all samples with this *name* and *labels*; None if there are none below `LARGEST`."""
        values = [series.value for series in self.each(name, **labels) if abs(series.value) < LARGEST]
        return sum(values) if values else None


def parse(text: str) -> Scrape:
    """Parse the body of one /metrics response.

    Raises:
        ExpositionError: a line is neither blank, nor a comment, nor a valid sample.
    """
    series = []
    # Do not use splitlines(), which also splits at characters such as U+2028 that may occur in a label value.
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r")
        if line and not line.startswith("#"):
            series.append(_sample(line, number))
    return Scrape(tuple(series))


def _sample(line: str, number: int) -> Series:
    match = _NAME.match(line)
    if match is None:
        raise ExpositionError(number, f"expected a metric name, got {line[:40]!r}")
    position, labels = match.end(), []
    rest = line[position:].lstrip(" \t")
    if rest.startswith("{"):
        position = len(line) - len(rest) + 1
        while not line[position:].lstrip(" \t").startswith("}"):
            pair = _LABEL.match(line, position)
            if pair is None:
                raise ExpositionError(number, f'expected label="value", got {line[position : position + 40]!r}')
            labels.append((pair[1], _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), pair[2])))
            position = pair.end()
        rest = line[position:].lstrip(" \t")[1:]
    words = rest.split()
    if len(words) not in {1, 2}:
        raise ExpositionError(number, f"expected a value and perhaps a timestamp, got {rest[:40]!r}")
    try:
        return Series(match[0], tuple(labels), float(words[0]))
    except ValueError:
        raise ExpositionError(number, f"expected a number, got {words[0][:40]!r}") from None
