"""The tally of a load: exact histograms by kind of connection and phase, and failures by cause; merging is lossless."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from generator.histogram import Histogram
from generator.request import Request


class Tally:
    """Counts completed requests.

    Times are recorded for successful requests only, because a request that is refused within a millisecond would lower
    every percentile.  Failures are counted by cause.
    """

    def __init__(self, requests: Iterable[Request] = ()) -> None:
        self.ok: Counter[str] = Counter()
        self.resumed: Counter[str] = Counter()
        #: Number of failed requests, keyed by (kind, cause).
        self.errors: Counter[tuple[str, str]] = Counter()
        #: Times, keyed by (kind, phase); `latency` (from the intended start) and `service_time` are two additional
        #: phases.
        self.times: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        self.lag = Histogram()
        for each in requests:
            self.add(each)

    def __repr__(self) -> str:
        return f"<Tally ok={self.ok.total()} lost={self.lost}>"

    @property
    def lost(self) -> int:
        """Number of failed requests."""
        return self.errors.total()

    def add(self, request: Request) -> None:
        """Count one completed request."""
        kind = request.kind
        self.lag.add(max(0.0, request.lag))
        if request.error:
            self.errors[kind, request.error] += 1
            return
        self.ok[kind] += 1
        if request.resumed:
            self.resumed[kind] += 1
        times = self.times
        times[kind, "latency"].add(request.latency)
        times[kind, "service_time"].add(request.service_time)
        for phase, seconds in request.phases().items():
            times[kind, phase].add(seconds)

    def merge(self, other: "Tally") -> None:
        """Add the counts of *other*."""
        self.ok.update(other.ok)
        self.resumed.update(other.resumed)
        self.errors.update(other.errors)
        self.lag.merge(other.lag)
        for key, histogram in other.times.items():
            self.times[key].merge(histogram)

    def as_json(self) -> dict[str, Any]:
        """Return all counts as JSON-compatible data, for another process or a file."""
        return {
            "ok": dict(self.ok),
            "resumed": dict(self.resumed),
            "errors": [[*key, count] for key, count in sorted(self.errors.items())],
            "times": [[*key, histogram.as_json()] for key, histogram in sorted(self.times.items())],
            "lag": self.lag.as_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Tally":
        """Return the tally that `as_json` encoded."""
        made = cls()
        made.ok.update(document["ok"])
        made.resumed.update(document["resumed"])
        made.errors.update({(kind, cause): count for kind, cause, count in document["errors"]})
        for kind, phase, counts in document["times"]:
            made.times[kind, phase].merge(Histogram.from_json(counts))
        made.lag.merge(Histogram.from_json(document["lag"]))
        return made
