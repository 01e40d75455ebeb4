"""Tests for the lifecycle of a certificate: renewals, retries and polls, at times given as arguments."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renewal.lifecycle import Lifecycle, RenewalInfo, Step, Validity
from renewal.schedule import MAX_RETRY_AFTER, Rule

DAY = 86400.0


def lifecycle(life: float, backdate: float = 60.0, *, serial: str = "0a", issued: float = 1000.0) -> Lifecycle:
    """Return the lifecycle of a certificate that was just received."""
    state = Lifecycle(Rule(), random.Random(1))
    state.succeeded(Validity(serial, issued, issued - backdate, issued + life))
    return state


def test_a_certificate_is_polled_for_at_once_and_renewed_at_its_share_of_life() -> None:
    state = lifecycle(3600.0)
    assert state.next(1000.0) == Step(1000.0, "poll")
    state.polling()
    assert state.next(1000.0).action == "renew"
    assert state.next(1000.0).at == pytest.approx(1000.0 + 1800.0, abs=72.0)
    state.polled(1001.0, 30.0)
    assert state.next(1001.0) == Step(1031.0, "poll")
    assert repr(state) == f"<Lifecycle 0a due={state.due:.0f} next={state.due:.0f} failures=0>"


@pytest.mark.parametrize("backdate", [0.0, 60.0, 3600.0])
@pytest.mark.parametrize("life", [60.0, 300.0, 90 * DAY])
def test_the_next_renewal_is_before_the_end_whatever_the_backdate(life: float, backdate: float) -> None:
    assert lifecycle(life, backdate).next_renewal < 1000.0 + 0.7 * life


@given(st.integers(1, 100_000), st.floats(1, 400 * DAY), st.one_of(st.none(), st.floats(0, 1e9)))
def test_after_any_number_of_failures_the_next_attempt_has_a_time(n: int, life: float, after: float | None) -> None:
    state = lifecycle(life)
    state.failures = n - 1
    pause = state.failed(2000.0, "no route", after)
    assert 1.0 <= pause <= 1.25 * DAY * max(1.0, life / (90 * DAY))
    assert pause >= min(after or 0.0, MAX_RETRY_AFTER)
    assert state.next_renewal == 2000.0 + pause
    assert 0 < state.first_attempt_delay(after) <= max(2.0, 1.25 * MAX_RETRY_AFTER)


def test_a_window_that_is_always_over_renews_once_and_then_not_before_the_minimum_gap() -> None:
    state, now = lifecycle(DAY), 1010.0
    assert state.informed(RenewalInfo(1.0, 2.0), "0a")
    assert state.next_renewal < now
    state.succeeded(Validity("0b", now, now - 60, now + DAY))
    assert state.informed(RenewalInfo(1.0, 2.0), "0b")
    assert state.next_renewal == pytest.approx(now + 0.1 * DAY)
    state.succeeded(Validity("0c", now + 0.1 * DAY, now, now + 1.1 * DAY))
    assert state.next_renewal > now + 0.2 * DAY


def test_a_failure_is_retried_when_the_back_off_says_and_not_when_the_window_does() -> None:
    state = lifecycle(DAY)
    state.failed(2000.0, "no route", 500.0)
    assert not state.informed(RenewalInfo(1.0, 2.0), "0a")
    assert 2500.0 <= state.next_renewal <= 2625.0


def test_a_renewal_that_is_due_comes_before_a_poll_and_retry_after_delays_both() -> None:
    state = lifecycle(3600.0)
    late = state.due + 10.0
    assert state.next(late).action == "renew"
    pause = state.failed(late, "busy", 500.0)
    assert (state.next(late).action, state.next(late).at) == ("renew", late + pause)
    assert 500.0 <= pause <= 625.0
    state.polling()
    state.polled(late, 30.0)
    assert state.next(late) == Step(late + 30.0, "poll")


def test_hosts_that_were_refused_together_do_not_return_together() -> None:
    pauses = []
    for seed in range(200):
        state = Lifecycle(Rule(), random.Random(seed))
        state.loaded(Validity("0a", 1000.0, 940.0, 1000.0 + DAY))
        pauses.append(state.failed(2000.0, "busy", 600.0))
    assert min(pauses) >= 600.0
    assert max(pauses) - min(pauses) > 120.0
    assert max(sum(begin <= each < begin + 15.0 for each in pauses) for begin in pauses) < 40


@pytest.mark.parametrize("by", [-DAY, -90.0, 90.0, DAY])
def test_a_step_of_the_clock_changes_no_delay(by: float) -> None:
    state = lifecycle(30 * DAY)
    due = state.due
    state.polled(2000.0, 300.0)
    state.clock_stepped(by)
    assert state.due == state.next_renewal == due
    pause = state.failed(2000.0 + by, "no route")
    state.clock_stepped(-by)
    assert state.next_renewal == pytest.approx(2000.0 + pause)
    state.succeeded(Validity("0b", 3000.0, 2940.0, 9e9))
    state.polled(3000.0, 300.0)
    state.clock_stepped(by)
    assert state.next(3000.0) == Step(3300.0 + by, "poll")


@pytest.mark.parametrize(("ahead", "moved"), [(0.0, True), (7200.0, False), (-7200.0, True)])
def test_a_window_is_in_the_time_of_the_cas_clock(ahead: float, moved: bool) -> None:
    state = lifecycle(DAY)
    assert state.informed(RenewalInfo(40_000.0, 40_001.0), "0a", ahead) is moved
    assert state.due == pytest.approx(40_000.0 + ahead if moved else 1000.0 + DAY / 2, abs=0.03 * DAY)


@given(st.lists(st.sampled_from(["fail", "succeed", "poll", "inform", "step"]), max_size=60), st.integers(0, 2**16))
def test_no_sequence_of_results_orders_more_often_than_once_a_second(events: list[str], seed: int) -> None:
    rng, now = random.Random(seed), 1000.0
    state, orders = lifecycle(rng.choice([20.0, 3600.0, 47 * DAY])), 0
    assert state.held is not None
    life = state.held.not_after - state.held.issued
    began = now
    for event in events:
        step = state.next(now)
        now = max(now, step.at)
        if step.action == "poll":
            state.polling()
            start = now + rng.uniform(-100, 100)
            if event == "inform":
                state.informed(RenewalInfo(start, start + 1), state.held.serial)
            state.polled(now, rng.choice([None, 0.0, 5.0]))
            continue
        orders += 1
        if event == "fail":
            state.failed(now, "no route", rng.choice([None, 0.0, 30.0]))
        else:
            state.succeeded(Validity(f"{orders:x}", now, now - 60, now + life))
    assert orders <= 2 + (now - began)
