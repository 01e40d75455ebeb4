"""Tests for the connection pool's decisions, without sockets or clocks."""

import pytest

from edge import Limits, Open, Outcome, Pool, Refuse, Target, Use, Wait
from edge.pool import LEAD
from edge.retry import RetryBudget

A, B = Target("a", 1), Target("b", 2)
OK, FAILED, TIMED_OUT, UNKNOWN = Outcome.OK, Outcome.FAILED, Outcome.TIMED_OUT, Outcome.UNKNOWN


def take(pool: Pool, now: float = 0.0, avoid: frozenset[Target] = frozenset()):
    decision = pool.take(object(), now, avoid)
    assert isinstance(decision, Open)
    return pool.opened(decision.target, now)


def give_back(pool: Pool, connection, now: float = 0.0, outcome: Outcome = OK, *, reusable: bool = True) -> bool:
    return pool.give_back(connection, now, outcome, reusable=reusable)


def test_the_connection_used_last_is_used_first() -> None:
    pool = Pool([A])
    first, second = take(pool), take(pool)
    give_back(pool, first, 1.0)
    give_back(pool, second, 2.0)
    assert pool.take("r", 3.0) == Use(second)
    assert repr(pool) == "<Pool a:1[busy=1 idle=1 failures=0] waiting=0 generation=0>"


def test_the_least_busy_target_goes_first() -> None:
    pool = Pool([A, B])
    first, second = take(pool), take(pool)
    assert {first.target, second.target} == {A, B}
    give_back(pool, first)
    assert pool.take("r", 0.0) == Use(first)


def test_requests_one_after_the_other_reach_every_target() -> None:
    pool = Pool([A, B])
    counts = {A: 0, B: 0}
    for _ in range(100):
        decision = pool.take("r", 0.0)
        assert isinstance(decision, Use | Open)
        connection = decision.connection if isinstance(decision, Use) else pool.opened(decision.target, 0.0)
        counts[connection.target] += 1
        give_back(pool, connection)
    assert abs(counts[A] - counts[B]) <= LEAD


def test_a_full_pool_queues_and_a_full_queue_refuses() -> None:
    pool = Pool([A], Limits(per_target=1, waiting=1))
    take(pool)
    assert pool.take("first", 0.0) == Wait()
    assert isinstance(pool.take("second", 0.0), Refuse)


def test_the_queue_is_served_in_order_and_no_newcomer_overtakes_it() -> None:
    pool = Pool([A], Limits(per_target=1))
    connection = take(pool)
    for name in ("first", "second", "third"):
        assert pool.take(name, 0.0) == Wait()
    assert pool.leave("first")
    assert not pool.leave("first")
    give_back(pool, connection)
    assert pool.take("newcomer", 0.0) == Wait()
    assert pool.next_waiter(0.0) == ("second", Use(connection))
    assert pool.next_waiter(0.0) is None
    assert pool.waiting == 2


def test_idle_and_old_connections_are_not_used() -> None:
    pool = Pool([A], Limits(idle_s=60, age_s=300))
    connection = take(pool)
    give_back(pool, connection)
    assert pool.expire(59.0) == []
    assert isinstance(pool.take("r", 60.0), Open)
    assert pool.expire(60.0) == [connection]
    old = pool.opened(A, 0.0)
    assert not give_back(pool, old, 300.0)


def test_connections_beyond_the_idle_limit_close_only_after_a_burst() -> None:
    pool = Pool([A], Limits(idle=1))
    first, second, third = take(pool), take(pool), take(pool)
    for connection in (first, second, third):
        assert give_back(pool, connection, 10.0)
    assert pool.expire(10.9) == []
    assert pool.take("r", 10.9) == Use(third)
    assert give_back(pool, third, 10.9)
    assert pool.expire(11.0) == [first, second]


def test_an_idle_limit_of_0_prevents_reuse() -> None:
    pool = Pool([A], Limits(idle=0))
    assert not give_back(pool, take(pool))


def test_a_new_certificate_drains_the_connections_of_the_old_one() -> None:
    pool = Pool([A])
    busy, idle = take(pool), take(pool)
    give_back(pool, idle)
    assert pool.retire() == [idle]
    assert not give_back(pool, busy)


def test_connections_to_an_address_that_left_the_answer_are_drained() -> None:
    pool = Pool([A])
    old, new = pool.opened(A, 0.0, "198.19.20.21"), pool.opened(A, 0.0, "198.19.20.22")
    for connection in (old, new):
        give_back(pool, connection)
    pool.resolved(A, frozenset({"198.19.20.22"}))
    assert pool.expire(0.0) == [old]
    assert pool.take("r", 0.0) == Use(new)


def fail(pool: Pool, target: Target, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        give_back(pool, take(pool, now, frozenset({A, B}) - {target}), now, FAILED, reusable=False)


def test_a_target_that_fails_is_ejected_for_longer_each_time() -> None:
    pool = Pool([A, B], Limits(failures=2, ejected_s=1.0, per_target=1000))
    fail(pool, A, 2)
    assert {take(pool, 0.9).target for _ in range(20)} == {B}
    assert [row["ejected"] for row in pool.describe(0.9)] == [True, False]
    assert take(pool, 1.0).target == A, "the probe"
    assert {take(pool, 1.0).target for _ in range(20)} == {B}, "one request probes, the others do not"


def test_a_probe_that_succeeds_brings_a_target_back_and_one_that_fails_ejects_it_again() -> None:
    pool = Pool([A, B], Limits(failures=1, ejected_s=1.0))
    fail(pool, A, 1)
    probe = take(pool, 1.0, frozenset({B}))
    give_back(pool, probe, 1.1, FAILED, reusable=False)
    assert [row["ejected"] for row in pool.describe(3.0)] == [True, False]
    assert [row["ejected"] for row in pool.describe(3.2)] == [False, False]
    probe = take(pool, 3.2, frozenset({B}))
    assert probe.target == A
    give_back(pool, probe, 3.3, OK)
    assert pool.take("r", 3.3, frozenset({B})) == Use(probe)
    assert [row["ejected"] for row in pool.describe(3.3)] == [False, False]


def test_a_client_that_leaves_says_nothing_about_the_target() -> None:
    pool = Pool([A], Limits(failures=1))
    give_back(pool, take(pool), outcome=UNKNOWN, reusable=False)
    assert [row["ejected"] for row in pool.describe(0.0)] == [False]


def test_a_target_has_an_alternative_while_another_one_is_not_ejected() -> None:
    pool = Pool([A, B], Limits(failures=1))
    assert pool.has_alternative(A)
    pool.checked(A, 0.0, healthy=False)
    assert pool.has_alternative(A)
    fail(pool, B, 1)
    assert not pool.has_alternative(A)


def test_when_all_are_ejected_they_are_tried_regardless() -> None:
    pool = Pool([A], Limits(failures=1))
    pool.take("r", 0.0)
    pool.failed(A, 0.0)
    assert pool.take("r", 0.0) == Open(A)


def test_when_all_time_out_requests_are_refused_until_a_probe_succeeds() -> None:
    pool = Pool([A, B], Limits(failures=1, ejected_s=1.0))
    for _ in (A, B):
        decision = pool.take("r", 0.0)
        assert isinstance(decision, Open)
        pool.failed(decision.target, 0.0, TIMED_OUT)
    assert pool.take("r", 0.9) == Refuse("no origin responds")
    probe = pool.take("r", 1.0, frozenset({B}))
    assert probe == Open(A)
    assert pool.take("r", 1.0, frozenset({B})) == Refuse("no origin responds"), "one request probes"
    give_back(pool, pool.opened(A, 1.1), 1.2, OK)
    assert isinstance(pool.take("r", 1.2, frozenset({B})), Use)


@pytest.mark.parametrize(
    ("timed_out", "decision"), [(True, Refuse("no origin responds")), (False, Open(A))], ids=["silent", "wrong-status"]
)
def test_a_health_check_that_times_out_refuses_requests_and_one_with_a_wrong_status_does_not(
    timed_out: bool, decision: Refuse | Open
) -> None:
    pool = Pool([A])
    pool.checked(A, 0.0, healthy=False, timed_out=timed_out)
    assert pool.take("r", 60.0) == decision
    pool.checked(A, 61.0, healthy=True)
    assert pool.take("r", 61.0) == Open(A)


def test_queued_requests_are_refused_when_the_last_target_times_out() -> None:
    pool = Pool([A], Limits(per_target=1, failures=1))
    busy = take(pool)
    assert pool.take("queued", 0.0) == Wait()
    give_back(pool, busy, 30.0, TIMED_OUT, reusable=False)
    assert pool.next_waiter(30.0) == ("queued", Refuse("no origin responds"))


def test_a_fresh_connection_is_no_idle_one() -> None:
    pool = Pool([A], Limits(per_target=1))
    idle = take(pool)
    give_back(pool, idle)
    assert pool.take("r", 0.0, fresh=True) == Open(A)
    assert pool.expire(0.0) == [idle], "it made room"


@pytest.mark.parametrize(("requests", "retries"), [(0, 10), (40, 20), (10_000, 100)])
def test_retries_are_a_share_of_requests(requests: int, retries: int) -> None:
    budget = RetryBudget(ratio=0.25, per_second=10, most=100)
    for _ in range(requests):
        budget.request()
    assert sum(budget.spend(0.0) for _ in range(1000)) == retries
    assert sum(budget.spend(1.0) for _ in range(1000)) == 10
