"""What the pool decides: no socket, no clock."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge import Limits, Open, Pool, Refuse, Target, Use, Wait

A, B = Target("a", 1), Target("b", 2)


def take(pool: Pool, now: float = 0.0):
    decision = pool.decide(now)
    assert isinstance(decision, Open)
    return pool.opened(decision.target, now)


def test_the_connection_used_last_is_used_first() -> None:
    pool = Pool([A])
    first, second = take(pool), take(pool)
    pool.give_back(first, 1.0, reusable=True)
    pool.give_back(second, 2.0, reusable=True)
    assert pool.decide(3.0) == Use(second)
    assert repr(pool) == "<Pool a:1[busy=1 idle=1 failures=0] waiting=0 generation=0>"


def test_targets_take_turns_and_the_least_busy_goes_first() -> None:
    pool = Pool([A, B])
    first = take(pool)
    second = take(pool)
    assert {first.target, second.target} == {A, B}
    pool.give_back(first, 0.0, reusable=True)
    assert pool.decide(0.0) == Use(first)


def test_a_full_pool_waits_and_a_full_queue_refuses() -> None:
    pool = Pool([A], Limits(per_target=1, waiting=1))
    take(pool)
    assert pool.decide(0.0) == Wait()
    pool.waiting = 1
    assert isinstance(pool.decide(0.0), Refuse)


def test_idle_and_old_connections_are_not_used() -> None:
    pool = Pool([A], Limits(idle_s=60, age_s=300))
    connection = take(pool)
    pool.give_back(connection, 0.0, reusable=True)
    assert pool.expire(59.0) == []
    assert isinstance(pool.decide(60.0), Open)
    assert pool.expire(60.0) == [connection]
    old = pool.opened(A, 0.0)
    assert not pool.give_back(old, 300.0, reusable=True)


def test_a_new_certificate_drains_the_connections_of_the_old_one() -> None:
    pool = Pool([A])
    busy, idle = take(pool), take(pool)
    pool.give_back(idle, 0.0, reusable=True)
    assert pool.retire() == [idle]
    assert not pool.give_back(busy, 0.0, reusable=True)


def test_a_target_that_fails_is_set_aside_for_longer_each_time_and_tried_again() -> None:
    pool = Pool([A, B], Limits(failures=2, aside_s=1.0))
    for _ in range(2):
        while (decision := pool.decide(0.0)) != Open(A):
            assert isinstance(decision, Open)
            pool.give_back(pool.opened(decision.target, 0.0), 0.0, reusable=False)
        pool.failed(A, 0.0)
    assert {getattr(pool.decide(0.5), "target", None) for _ in range(4)} == {B}
    assert Open(A) in [pool.decide(1.0) for _ in range(2)]


def test_a_target_is_called_aside_only_while_it_is() -> None:
    pool = Pool([A, B], Limits(failures=1, aside_s=2))
    pool.decide(0, frozenset({B}))
    pool.failed(A, 0)
    assert [[row["aside"] for row in pool.describe(now)] for now in (1, 3)] == [[True, False], [False, False]]


def test_when_all_are_aside_they_are_tried_regardless() -> None:
    pool = Pool([A], Limits(failures=1))
    assert pool.decide(0.0) == Open(A)
    pool.failed(A, 0.0)
    assert pool.decide(0.0) == Open(A)


class Life(RuleBasedStateMachine):
    """Any order of events: counts stay true and bounds hold."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits(per_target=3, idle=2, idle_s=5, age_s=20, failures=2)
        self.pool = Pool([A, B], self.limits)
        self.now = 0.0
        self.busy: list = []
        self.idle: list = []

    @rule(seconds=st.floats(0, 8))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(works=st.booleans())
    def request(self, works: bool) -> None:
        decision = self.pool.decide(self.now)
        if isinstance(decision, Use):
            assert decision.connection in self.idle
            self.idle.remove(decision.connection)
            self.busy.append(decision.connection)
        elif isinstance(decision, Open) and works:
            self.busy.append(self.pool.opened(decision.target, self.now))
        elif isinstance(decision, Open):
            self.pool.failed(decision.target, self.now)
        else:
            assert len(self.busy) >= 3  # the other target may be set aside

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), reusable=st.booleans())
    def finish(self, data: st.DataObject, reusable: bool) -> None:
        connection = self.busy.pop(data.draw(st.integers(0, len(self.busy) - 1)))
        if self.pool.give_back(connection, self.now, reusable=reusable):
            self.idle.append(connection)

    @rule()
    def expire(self) -> None:
        for connection in self.pool.expire(self.now):
            self.idle.remove(connection)

    @rule()
    def retire(self) -> None:
        for connection in self.pool.retire():
            self.idle.remove(connection)

    @invariant()
    def counts_are_true(self) -> None:
        rows = self.pool.describe(self.now)
        assert sum(row["active"] for row in rows) == len(self.busy)
        assert sum(row["idle"] for row in rows) <= len(self.idle)
        assert all(row["active"] + row["idle"] <= 3 for row in rows)


Life.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
