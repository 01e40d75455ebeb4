"""Tests for the health checks of a certificate, its renewal and the clock."""

import random
from dataclasses import replace

import pytest

from renewal.health import Condition, judge
from renewal.lifecycle import Lifecycle, Validity
from renewal.schedule import Rule


def condition(failures: int = 0, error: str = "no route") -> Condition:
    """Return the condition of a certificate with a lifetime of 60 s, a backdate of 40 s, and renewal due after 30 s."""
    lifecycle = Lifecycle(Rule(), random.Random(1))
    lifecycle.loaded(held := Validity("0a", 1000.0, 960.0, 1060.0))
    lifecycle.due = 1030.0
    for _ in range(failures):
        lifecycle.failed(1030.0, error)
    return Condition(held, lifecycle)


WELL = condition()
REASON = "expected 200, got 503"
TWICE = condition(2, REASON)


@pytest.mark.parametrize(
    ("condition", "now", "certificate"),
    [
        pytest.param(WELL, 1010.0, (True, "50 s left"), id="young"),
        pytest.param(WELL, 1033.0, (True, "27 s left"), id="due-and-within-the-grace"),
        pytest.param(WELL, 1034.0, (False, "renewal was due 4 s ago, 26 s of 60 s left; not renewed"), id="overdue"),
        pytest.param(TWICE, 1034.0, (False, f"renewal was due 4 s ago, 26 s of 60 s left; {REASON}"),
            id="overdue-for-a-reason"),
        pytest.param(WELL, 1060.0, (False, "expired 0 s ago; not renewed"), id="ends-now"),
        pytest.param(TWICE, 1065.0, (False, f"expired 5 s ago; {REASON}"), id="expired"),
    ],
)  # fmt: skip
def test_a_certificate_is_judged_by_what_is_left_and_what_was_due(condition, now, certificate) -> None:
    first, *_ = judge(condition, now)
    assert (first.check, (first.ok, first.detail)) == ("certificate", certificate)


@pytest.mark.parametrize(
    ("failures", "renewal"),
    [(0, (True, "")), (1, (True, "1 failures in a row: no route")), (2, (False, "2 failures in a row: no route"))],
    ids=["none", "a-hiccup", "a-pattern"],
)
def test_two_failures_in_a_row_are_a_pattern(failures, renewal) -> None:
    _, second, _ = judge(condition(failures), 1010.0)
    assert (second.check, (second.ok, second.detail)) == ("renewal", renewal)


@pytest.mark.parametrize(
    ("skew", "clock"),
    [
        pytest.param(1.5, (True, "1.5 s ahead of the CA; up to 1.5 s is tolerated"), id="within"),
        pytest.param(1.6, (False, "1.6 s ahead of the CA; up to 1.5 s is tolerated"), id="ahead"),
        pytest.param(-1.6, (False, "1.6 s behind the CA; up to 1.5 s is tolerated"), id="behind"),
    ],
)
def test_a_clock_is_held_against_the_cas(skew, clock) -> None:
    *_, third = judge(replace(WELL, skew=skew), 1010.0)
    assert (third.check, (third.ok, third.detail)) == ("clock", clock)


def test_a_ca_that_said_nothing_says_nothing_of_the_clock() -> None:
    assert [finding.check for finding in judge(WELL, 1010.0)] == ["certificate", "renewal", "file"]


def test_a_certificate_that_is_only_in_memory_is_an_alarm() -> None:
    *_, found = judge(replace(WELL, unsaved="/srv/tls/pair.pem: No space left on device"), 1010.0)
    assert (found.ok, found.detail.partition(":")[0]) == (False, "the certificate is in memory only")


@pytest.mark.parametrize(
    ("not_after", "deliberate", "ok"),
    [(1059.0, False, True), (1050.0, False, False), (1050.0, True, True), (1120.0, False, True)],
    ids=["truncated", "shorter", "shorter-on-purpose", "longer"],
)
def test_a_certificate_that_ends_earlier_than_the_one_before_is_an_alarm(
    not_after: float, deliberate: bool, ok: bool
) -> None:
    found = condition()
    held = Validity("0b", 1030.0, 970.0, not_after)
    found.lifecycle.succeeded(held, deliberate=deliberate)
    assert judge(replace(found, held=held), 1031.0)[1].ok is ok
