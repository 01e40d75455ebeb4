"""Tests for thresholds of load tests, without Locust."""

import pytest

from generator import Request, Tally
from swarm import thresholds


def tally(*kinds: str, times: list[float], lost: int = 0) -> Tally:
    """Return a synthetic tally: each of *kinds* has one request per element of *times* (latencies in seconds)."""
    made = Tally()
    for kind in kinds:
        for seconds in times:
            request = Request(0.0, kind, 0.0)
            request.done = seconds
            made.add(request)
        for _ in range(lost):
            request = Request(0.0, kind, 0.0)
            request.error = "reset"
            made.add(request)
    return made


HUNDRED = tally("fresh", times=[n / 1000 for n in range(1, 101)])


@pytest.mark.parametrize(
    ("text", "load", "outcome", "message"),
    [
        ("p99>98ms", HUNDRED, "failure", "got 99.000 ms of 100 requests"),
        ("p99>99ms", HUNDRED, "passed", "got 99.000 ms of 100 requests"),
        ("p99.9>1s", HUNDRED, "error", "expected at least 1,000 successful requests to tell, got 100"),
        ("p50 > 50000us", HUNDRED, "passed", "got 50.000 ms of 100 requests"),
        ("mean<60ms", HUNDRED, "failure", "got 50.500 ms of 100 requests"),
        ("max>0.1s", HUNDRED, "passed", "got 100.000 ms of 100 requests"),
        ("fresh p50>1ms", HUNDRED, "failure", "got 50.000 ms of 100 requests"),
        ("pooled p50>1ms", HUNDRED, "error", "expected at least 2 successful requests to tell, got 0"),
        ("p50>1ms", tally("fresh", "dns", times=[0.001, 0.002]), "passed", "got 1.000 ms of 4 requests"),
        ("queries mean>1ms", tally("fresh", "dns", times=[0.002]), "failure", "got 2.000 ms of 1 requests"),
        ("errors>1%", tally("fresh", times=[0.1] * 98, lost=2), "failure", "got 2.000%, 2 of 100 requests"),
        ("errors>2%", tally("fresh", times=[0.1] * 98, lost=2), "passed", "got 2.000%, 2 of 100 requests"),
        ("errors>0%", Tally(), "error", "expected at least 1 request to tell, got 0"),
        ("requests<101", HUNDRED, "failure", "got 100 requests"),
        ("requests<1", Tally(), "failure", "got 0 requests"),
        ("rate<10/s", HUNDRED, "passed", "got 10.0 successful requests per second"),
    ],
)
def test_a_threshold_is_broken_kept_or_cannot_be_judged(text: str, load: Tally, outcome: str, message: str) -> None:
    (threshold,) = thresholds.parse(text)
    case = threshold.judge(load, 10.0)
    assert (case.outcome, case.message) == (outcome, message)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p99", "expected a threshold such as p99>80ms or errors>0.1%, got 'p99'"),
        ("p99>80", "expected the unit us or ms or s for p99, got '' in 'p99>80'"),
        ("p99>80%", "expected the unit us or ms or s for p99, got '%' in 'p99>80%'"),
        ("errors>1", "expected the unit % for errors, got '' in 'errors>1'"),
        ("p100>1s", "expected a metric (p99, mean, max, errors, requests, rate), got 'p100'"),
        ("median>1s", "got 'median'"),
        ("fresh shake p99>1s", "got 'shake' in 'fresh shake p99>1s'"),
        ("tls errors>1%", "got 'tls' in 'tls errors>1%'"),
        (">1s", "expected a threshold such as"),
    ],
)
def test_what_is_no_threshold_is_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        thresholds.parse(text)
    assert expected in str(caught.value)


def test_thresholds_are_separated_by_commas_and_the_worst_result_is_the_exit_code() -> None:
    made = thresholds.parse("p50>1s, fresh first byte p99 > 80ms,")
    assert [(each.kind, each.phase, each.metric) for each in made] == [
        ("", "latency", "p50"),
        ("fresh", "first_byte", "p99"),
    ]
    cases = [each.judge(HUNDRED, 1.0) for each in thresholds.parse("p50>1s, p99.9>1s, p50>1ms")]
    assert [thresholds.verdict(cases[:n]) for n in range(4)] == [0, 0, 4, 1]
