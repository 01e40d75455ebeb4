"""Thresholds of a load test: conditions such as ``p99>80ms`` under which the test fails.

A threshold is ``[KIND] [PHASE] METRIC < or > VALUE``, for example ``p99>80ms``, ``errors>0.1%``, ``requests<1000`` or
``fresh tls p50>30ms``.  Metrics are percentiles, the mean and the maximum of a time, the share of failed requests, and
the number of requests and of successful requests per second.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from generator import KINDS as CONNECTIONS
from generator import PHASES, Histogram, Tally
from hostfiles.junit import Case

_THRESHOLD = re.compile(r"([a-z0-9_. ]*?)\s*([<>])\s*(\d+(?:\.\d+)?)\s*([a-z%/]*)", re.ASCII)
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,3})?)", re.ASCII)
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
#: Units of each metric that is not a time, with the factor that converts a value to the unit of `Threshold.limit`.
_UNITS = {"errors": {"%": 0.01}, "requests": {"": 1.0}, "rate": {"/s": 1.0}}
#: Kinds of requests, keyed by their name in a threshold.  DNS queries are named `queries`, because `dns` names a phase.
KINDS: dict[str, str] = {**{kind: kind for kind in CONNECTIONS}, "queries": "dns"}


@dataclass(frozen=True, slots=True)
class Threshold:
    """A condition under which a load test fails."""

    #: The threshold as the user wrote it.
    text: str
    #: Kind of requests to which the threshold applies; "" for all kinds.
    kind: str
    #: Phase of a request whose time is limited, or `latency`: the time from the intended start of the request.
    phase: str
    metric: str
    #: Whether the test fails if the value is above `limit`; if False, it fails if the value is below `limit`.
    above: bool
    #: Limit of the metric: seconds for times, a share for errors, otherwise a number or a rate per second.
    limit: float

    def judge(self, tally: Tally, seconds: float) -> Case:
        """Evaluate the threshold for the requests of *tally*, sent during *seconds*; return a test case."""
        name = f"--fail-if {self.text}"
        kinds = [self.kind] if self.kind else sorted(tally.ok | {kind: 1 for kind, _ in tally.errors})
        good = sum(tally.ok[kind] for kind in kinds)
        lost = sum(count for (kind, _), count in tally.errors.items() if kind in kinds)
        if self.metric == "errors":
            got = lost / (good + lost) if good + lost else math.nan
            words = f"{got:.3%}, {lost:,} of {good + lost:,} requests"
        elif self.metric == "requests":
            got, words = good + lost, f"{good + lost:,} requests"
        elif self.metric == "rate":
            got = good / seconds if seconds else math.nan
            words = f"{got:,.1f} successful requests per second"
        else:
            times = Histogram()
            for kind in kinds:
                times.merge(tally.times.get((kind, self.phase), Histogram()))
            least = self._least()
            if len(times) < least:
                return Case(
                    name, "error", f"expected at least {least:,} successful requests to tell, got {len(times):,}"
                )
            got = self._time(times)
            words = f"{got * 1e3:.3f} ms of {len(times):,} requests"
        if math.isnan(got):
            return Case(name, "error", "expected at least 1 request to tell, got 0")
        broken = got > self.limit if self.above else got < self.limit
        return Case(name, "failure", f"got {words}") if broken else Case(name, message=f"got {words}")

    def _least(self) -> int:
        """Return the smallest number of requests from which the metric can be computed, such as 100 for p99."""
        found = _PERCENTILE.fullmatch(self.metric)
        return math.ceil(round(100 / (100 - float(found[1])), 6)) if found else 1

    def _time(self, times: Histogram) -> float:
        if found := _PERCENTILE.fullmatch(self.metric):
            return times.percentile(float(found[1]))
        return times.mean if self.metric == "mean" else times.largest


def parse(text: str) -> tuple[Threshold, ...]:
    """Parse thresholds that are separated by commas.

    Raises:
        ValueError: the text contains something that is not a threshold; the message says what was expected.
    """
    return tuple(_parse(" ".join(each.split())) for each in text.split(",") if each.strip())


def _parse(text: str) -> Threshold:
    found = _THRESHOLD.fullmatch(text)
    if found is None or not found[1]:
        raise ValueError(f"expected a threshold such as p99>80ms or errors>0.1%, got {text!r}")
    *words, metric = found[1].split()
    kind = KINDS[words.pop(0)] if words and words[0] in KINDS else ""
    phase = "_".join(words)
    units = _UNITS.get(metric, _TIMES)
    if metric not in {*_UNITS, "mean", "max"} and not _PERCENTILE.fullmatch(metric):
        raise ValueError(f"expected a metric (p99, mean, max, errors, requests, rate), got {metric!r} in {text!r}")
    if phase and (phase not in PHASES or units is not _TIMES):
        raise ValueError(
            f"expected a kind ({', '.join(KINDS)}), and for times a phase ({', '.join(PHASES)}) before {metric}, "
            f"got {' '.join(words)!r} in {text!r}"
        )
    if found[4] not in units:
        expected = " or ".join(units) or "no unit"
        raise ValueError(f"expected the unit {expected} for {metric}, got {found[4]!r} in {text!r}")
    return Threshold(
        text, kind, phase or "latency", metric, found[2] == ">", round(float(found[3]) * units[found[4]], 9)
    )


def verdict(cases: Sequence[Case]) -> int:
    """Return the exit code: 0 if no threshold was crossed, 1 if one was, 4 if one could not be evaluated."""
    outcomes = {case.outcome for case in cases}
    return 1 if "failure" in outcomes else 4 if "error" in outcomes else 0
