"""Metrics in the Prometheus text exposition format 0.0.4: counters, gauges and histograms.

Updates use no locks, so each metric must be updated by a single thread.  A scrape reads plain dictionaries.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Literal, TypedDict, TypeVar

#: Default bucket bounds in seconds, for latencies from a cache hit on loopback to a retried request over a slow link.
LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

LabelValues = tuple[str, ...]
#: How the values of one series from several worker processes are merged; "worker" keeps every value and adds a label.
Across = Literal["sum", "max", "min", "worker"]


class Part(TypedDict):
    """One metric of one worker process, in the form that `telemetry.merging.metrics` merges."""

    #: The HELP and TYPE lines.
    head: str
    across: Across
    samples: list[str]


M = TypeVar("M", bound="_Metric")


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _labels(names: Sequence[str], values: LabelValues, extra: str = "") -> str:
    pairs = [f'{n}="{_escape(v)}"' for n, v in zip(names, values, strict=True)]
    if extra:
        pairs.append(extra)
    return "{" + ",".join(pairs) + "}" if pairs else ""


class _Metric:
    kind = ""
    across: Across = "sum"

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...]) -> None:
        self.name, self.help, self.labels = name, help_text, labels

    def _key(self, labels: dict[str, str]) -> LabelValues:
        if len(labels) != len(self.labels):
            raise ValueError(f"{self.name}: expected labels {self.labels}, got {tuple(labels)}")
        return tuple(str(labels[name]) for name in self.labels)

    def samples(self) -> list[str]:
        raise NotImplementedError

    def part(self) -> Part:
        head = f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}"
        return {"head": head, "across": self.across, "samples": self.samples()}


class _Scalar(_Metric):
    """Base of metrics with a single number per combination of label values."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...]) -> None:
        super().__init__(name, help_text, labels)
        self.values: dict[LabelValues, float] = {}

    def samples(self) -> list[str]:
        """Return the metric's sample lines for one scrape."""
        return [f"{self.name}{_labels(self.labels, key)} {value!r}" for key, value in sorted(self.values.items())]


class Counter(_Scalar):
    """A count that only increases."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...]) -> None:
        super().__init__(name, help_text, labels)
        if not labels:
            self.values[()] = 0

    def inc(self, amount: float = 1, **labels: str) -> None:
        """Add *amount* to the series with these labels."""
        key = self._key(labels) if self.labels else ()
        self.values[key] = self.values.get(key, 0) + amount

    def value(self, **labels: str) -> float:
        """Return the count of the series with these labels, or 0 if it was never incremented."""
        return self.values.get(self._key(labels), 0)


class Gauge(_Scalar):
    """A value that can increase and decrease."""

    kind = "gauge"

    def set(self, value: float, **labels: str) -> None:
        """Set the value of the series with these labels."""
        self.values[self._key(labels)] = value

    def value(self, **labels: str) -> float:
        """Return the value of the series with these labels.

        Raises:
            KeyError: the series has no value.
        """
        return self.values[self._key(labels)]

    def remove(self, **labels: str) -> None:
        """Remove the series with these labels."""
        self.values.pop(self._key(labels), None)


class Histogram(_Metric):
    """Number of observations per bucket, and their sum."""

    kind = "histogram"

    def __init__(self, name: str, help_text: str, buckets: Sequence[float], labels: tuple[str, ...]) -> None:
        super().__init__(name, help_text, labels)
        self.buckets = tuple(sorted(buckets))
        self.counts: dict[LabelValues, list[int]] = {}
        self.sums: dict[LabelValues, float] = {}

    def observe(self, value: float, **labels: str) -> None:
        """Count one observation of *value*."""
        key = self._key(labels) if self.labels else ()
        counts = self.counts.get(key)
        if counts is None:
            counts = self.counts[key] = [0] * (len(self.buckets) + 1)
            self.sums[key] = 0.0
        counts[bisect_left(self.buckets, value)] += 1
        self.sums[key] += value

    def merge(self, counts: Sequence[int], total: float, **labels: str) -> None:
        """Add observations counted elsewhere: *counts* per bucket, including the last (+Inf), and their sum *total*."""
        key = self._key(labels) if self.labels else ()
        before = self.counts.get(key, [0] * (len(self.buckets) + 1))
        self.counts[key] = [a + b for a, b in zip(before, counts, strict=True)]
        self.sums[key] = self.sums.get(key, 0.0) + total

    def samples(self) -> list[str]:
        """Return the histogram's sample lines for one scrape."""
        lines = []
        for key, counts in sorted(self.counts.items()):
            running = 0
            for bound, count in zip((*self.buckets, float("inf")), counts, strict=True):
                running += count
                le = "+Inf" if bound == float("inf") else f"{bound:g}"
                bucket = _labels(self.labels, key, f'le="{le}"')
                lines.append(f"{self.name}_bucket{bucket} {running}")
            lines.append(f"{self.name}_sum{_labels(self.labels, key)} {self.sums[key]!r}")
            lines.append(f"{self.name}_count{_labels(self.labels, key)} {running}")
        return lines


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Metric] = {}
        self._before: list[Callable[[], None]] = []

    def _add(self, metric: M) -> M:
        if metric.name in self._metrics:
            raise ValueError(f"metric {metric.name} is declared twice")
        self._metrics[metric.name] = metric
        return metric

    def counter(self, name: str, help_text: str, *labels: str) -> Counter:
        """Register and return a counter; by convention its name ends in ``_total``."""
        return self._add(Counter(name, help_text, labels))

    def gauge(self, name: str, help_text: str, *labels: str, across: Across = "sum") -> Gauge:
        """Register and return a gauge; by convention its name ends in its unit.

        *across* selects how the values of several worker processes are merged.
        """
        gauge = self._add(Gauge(name, help_text, labels))
        gauge.across = across
        return gauge

    def histogram(
        self, name: str, help_text: str, buckets: Sequence[float] = LATENCY_BUCKETS, *labels: str
    ) -> Histogram:
        """Register and return a histogram with the upper bucket bounds *buckets*."""
        return self._add(Histogram(name, help_text, buckets, labels))

    def before_render(self, callback: Callable[[], None]) -> None:
        """Register *callback* to be called before every scrape, for example to update gauges."""
        self._before.append(callback)

    def parts(self) -> list[Part]:
        """Return the current values of all metrics, in the order of registration."""
        for callback in self._before:
            callback()
        return [metric.part() for metric in self._metrics.values()]

    def render(self) -> str:
        """Return the response body of ``GET /metrics``."""
        return "".join("\n".join([part["head"], *part["samples"], ""]) for part in self.parts())
