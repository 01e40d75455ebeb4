"""Tests for histograms and tallies: exact counts and lossless merging."""

import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generator import Histogram, Request, Starvation, Tally

MICROSECONDS = st.lists(st.integers(0, 10**8), max_size=60)


def seconds(values: list[int]) -> list[float]:
    return [value / 1e6 for value in values]


@given(MICROSECONDS, MICROSECONDS)
def test_a_merged_histogram_equals_one_of_all_values(one: list[int], two: list[int]) -> None:
    merged = Histogram(seconds(one))
    merged.merge(Histogram(seconds(two)))
    assert merged == Histogram(seconds(one + two))


@given(MICROSECONDS.filter(bool), st.floats(0.1, 100))
def test_a_percentile_is_a_measured_value_of_that_rank(values: list[int], percent: float) -> None:
    found = round(Histogram(seconds(values)).percentile(percent) * 1e6)
    assert found in values
    assert sum(v <= found for v in values) >= math.floor(percent / 100 * len(values))
    assert sum(v < found for v in values) < math.ceil(percent / 100 * len(values))


def test_the_rank_of_a_percentile_is_exact() -> None:
    assert round(Histogram(seconds(list(range(1, 1001)))).percentile(99.9) * 1e6) == 999


@given(MICROSECONDS.filter(bool))
def test_mean_and_extremes_are_those_of_the_values(values: list[int]) -> None:
    histogram = Histogram(seconds(values))
    assert histogram.mean == pytest.approx(statistics.mean(values) / 1e6)
    assert (round(histogram.smallest * 1e6), round(histogram.largest * 1e6)) == (min(values), max(values))


@given(MICROSECONDS)
def test_a_histogram_survives_json(values: list[int]) -> None:
    histogram = Histogram(seconds(values))
    assert Histogram.from_json(json.loads(json.dumps(histogram.as_json()))) == histogram


def request(kind: str = "fresh", error: str = "", **phases: float) -> Request:
    made = Request(1.0, kind, sent=1.001, done=1.050, error=error)
    for name, value in phases.items():
        setattr(made, name, value)
    return made


def test_a_failure_is_counted_by_cause_and_not_timed() -> None:
    tally = Tally([request(tls=0.02), request(error="connect: EADDRNOTAVAIL")])
    assert dict(tally.errors) == {("fresh", "connect: EADDRNOTAVAIL"): 1}
    assert len(tally.times["fresh", "latency"]) == 1
    assert tally.times["fresh", "tls"].percentile(50) == 0.02


def test_latency_counts_from_the_intended_start_and_service_time_from_the_actual() -> None:
    one = request()
    assert (one.latency, one.service_time, one.lag) == pytest.approx((0.050, 0.049, 0.001))


def test_tallies_of_two_workers_merge_and_survive_json() -> None:
    whole = Tally([request(tls=0.02), request("pooled", receive=0.001), request(error="timeout")])
    halves = [Tally([request(tls=0.02)]), Tally([request("pooled", receive=0.001), request(error="timeout")])]
    merged = Tally()
    for half in halves:
        merged.merge(Tally.from_json(json.loads(json.dumps(half.as_json()))))
    assert merged.as_json() == whole.as_json()


@pytest.mark.parametrize(
    ("lag_ms", "cpu", "rtt_ms", "starved"),
    [
        pytest.param(4.0, 0.5, 0, False, id="fit"),
        pytest.param(6.0, 0.5, 0, True, id="late"),
        pytest.param(6.0, 0.5, 200, False, id="late-but-little-of-the-rtt"),
        pytest.param(1.0, 0.81, 0, True, id="no-cpu-left"),
    ],
)
def test_a_generator_that_is_late_or_out_of_cpu_is_starved(
    lag_ms: float, cpu: float, rtt_ms: float, starved: bool
) -> None:
    gate = Starvation.of(Histogram([lag_ms / 1e3] * 100), cpu, rtt_ms / 1e3)
    assert gate.starved is starved
    assert len(gate.reasons) == int(starved)
