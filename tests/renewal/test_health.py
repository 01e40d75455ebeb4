"""Tests for the health checks of a certificate, its renewal and the clock."""

from dataclasses import replace

import pytest

from renewal.health import Condition, judge

#: A healthy certificate with a lifetime of 60 s, a backdate of 40 s, and a renewal scheduled at half of the lifetime.
WELL = Condition(issued=1000.0, not_before=960.0, not_after=1060.0, due=1030.0)
TWICE = replace(WELL, failures=2, last_error="expected 200, got 503")


@pytest.mark.parametrize(
    ("condition", "now", "certificate"),
    [
        pytest.param(WELL, 1010.0, (True, "50 s left"), id="young"),
        pytest.param(WELL, 1033.0, (True, "27 s left"), id="due-and-within-the-grace"),
        pytest.param(WELL, 1034.0, (False, "renewal was due 4 s ago, 26 s of 60 s left; not renewed"), id="overdue"),
        pytest.param(TWICE, 1034.0, (False, f"renewal was due 4 s ago, 26 s of 60 s left; {TWICE.last_error}"),
            id="overdue-for-a-reason"),
        pytest.param(WELL, 1060.0, (False, "expired 0 s ago; not renewed"), id="ends-now"),
        pytest.param(TWICE, 1065.0, (False, f"expired 5 s ago; {TWICE.last_error}"), id="expired"),
    ],
)  # fmt: skip
def test_a_certificate_is_judged_by_what_is_left_and_what_was_due(condition, now, certificate) -> None:
    first, _ = judge(condition, now)
    assert (first.check, (first.ok, first.detail)) == ("certificate", certificate)


@pytest.mark.parametrize(
    ("failures", "renewal"),
    [(0, (True, "")), (1, (True, "1 failures in a row: no route")), (2, (False, "2 failures in a row: no route"))],
    ids=["none", "a-hiccup", "a-pattern"],
)
def test_two_failures_in_a_row_are_a_pattern(failures, renewal) -> None:
    _, second = judge(replace(WELL, failures=failures, last_error="no route"), 1010.0)
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
    _, _, third = judge(replace(WELL, skew=skew), 1010.0)
    assert (third.check, (third.ok, third.detail)) == ("clock", clock)


def test_a_ca_that_said_nothing_says_nothing_of_the_clock() -> None:
    assert [finding.check for finding in judge(WELL, 1010.0)] == ["certificate", "renewal"]
