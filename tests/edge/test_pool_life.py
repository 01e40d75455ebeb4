"""Stateful property test of the pool: limits, queue order, ejection and retry budget hold after any events."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edge import Limits, Open, Outcome, Pool, Refuse, Target, Use, Wait
from edge.pool import SURPLUS_S, Connection
from edge.retry import RetryBudget

A, B, C = Target("a", 1), Target("b", 2), Target("c", 3)
TARGETS = st.sampled_from([A, B, C])
ADDRESSES = st.sampled_from(["198.19.20.21", "198.19.20.22"])
RATIO, PER_SECOND = 0.2, 1.0


class Life(RuleBasedStateMachine):
    """Hypothesis state machine that drives one `Pool`; each rule is an event that `edge.route_pool` would report."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = Limits(per_target=3, idle=2, idle_s=5, age_s=20, failures=2, ejected_max_s=8, waiting=4)
        self.pool = Pool([A, B, C], self.limits)
        self.now = 0.0
        self.opening: list[Target] = []
        self.busy: list[Connection] = []
        self.idle: list[Connection] = []
        self.queue: dict[int, frozenset[Target]] = {}
        self.addresses: dict[Target, frozenset[str]] = {}
        self.number = 0
        self.budget, self.requests, self.retries = RetryBudget(RATIO, PER_SECOND), 0, 0

    # --- assertions on decisions --------------------------------------------------------------------------------------

    def sound(self, avoid: frozenset[Target]) -> list[Target]:
        """Return the targets that have room, have not reached the failure limit, and are not in *avoid*."""
        states = self.pool._list
        return [
            s.target for s in states
            if s.failures < self.limits.failures and s.target not in avoid and (s.idle or s.total < 3)
        ]  # fmt: skip

    def ejected(self) -> set[Target]:
        return {t for t, row in zip(self.pool._states, self.pool.describe(self.now), strict=True) if row["ejected"]}

    def probed(self) -> set[Target]:
        return {state.target for state in self.pool._list if state.probing}

    def unresponsive(self, avoid: frozenset[Target]) -> bool:
        """Return whether every target outside *avoid* last failed with a time-out and must not be probed."""
        states = [s for s in self.pool._list if s.target not in avoid] or self.pool._list
        return all(s.failures >= self.limits.failures and s.unresponsive and not s.healthy for s in states)

    def perform(self, decision: Use | Open, before: tuple[list[Target], set[Target], set[Target]]) -> None:
        sound, ejected, probed = before
        target = decision.connection.target if isinstance(decision, Use) else decision.target
        if sound:
            assert target not in ejected, "an ejected target gets nothing while another one can serve"
            assert target in sound or target not in probed, "one request at a time probes a target"
        if isinstance(decision, Use):
            connection = decision.connection
            self.idle.remove(connection)
            self.busy.append(connection)
            assert self.now - connection.idle_since < self.limits.idle_s
            assert self.now - connection.opened < self.limits.age_s
            assert connection.address in self.addresses.get(target, {connection.address})
        else:
            self.opening.append(target)

    # --- events -------------------------------------------------------------------------------------------------------

    @rule(seconds=st.floats(0, 8))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(fresh=st.booleans(), avoid=st.frozensets(TARGETS))
    def request(self, fresh: bool, avoid: frozenset[Target]) -> None:
        self.number += 1
        if avoid:
            if not self.budget.spend(self.now):
                return
            self.retries += 1
        else:
            self.budget.request()
            self.requests += 1
        before = self.sound(avoid), self.ejected(), self.probed()
        decision = self.pool.take(self.number, self.now, avoid, fresh=fresh)
        if isinstance(decision, Wait):
            assert self.queue or not before[0], "a request waits only if no sound target has room"
            self.queue[self.number] = avoid
        elif isinstance(decision, Refuse):
            assert len(self.queue) == self.limits.waiting or self.unresponsive(avoid)
        else:
            assert not self.queue, "a newcomer overtakes none that waits"
            self.perform(decision, before)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter = data.draw(st.sampled_from(list(self.queue)))
        del self.queue[waiter]
        assert self.pool.leave(waiter)

    @rule()
    def serve(self) -> None:
        ejected, probed = self.ejected(), self.probed()
        rooms = {waiter: self.sound(avoid) for waiter, avoid in self.queue.items()}
        found = self.pool.next_waiter(self.now)
        if found is None:
            assert not self.queue or self.busy or self.opening, "an unused pool lets none wait"
            first = next((place for place, avoid in enumerate(self.queue.values()) if not avoid), len(self.queue))
            assert not any(list(rooms.values())[: first + 1]), "a request that avoids a target blocks no other"
            return
        waiter, decision = found
        earlier = list(self.queue)[: list(self.queue).index(waiter)]
        assert all(self.queue[each] for each in earlier), "only those that avoid a target are passed over"
        avoid = self.queue.pop(waiter)
        if isinstance(decision, Refuse):
            assert self.unresponsive(avoid)
            return
        self.perform(decision, (rooms[waiter], ejected, probed))

    @precondition(lambda self: self.opening)
    @rule(data=st.data(), how=st.sampled_from(["opened", "failed", "timed out", "cancelled"]), address=ADDRESSES)
    def open_ends(self, data: st.DataObject, how: str, address: str) -> None:
        target = self.opening.pop(data.draw(st.integers(0, len(self.opening) - 1)))
        if how == "opened":
            self.busy.append(self.pool.opened(target, self.now, address))
        elif how == "cancelled":
            self.pool.cancelled(target, self.now)
        else:
            self.pool.failed(target, self.now, Outcome(how))

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), reusable=st.booleans(), outcome=st.sampled_from(Outcome))
    def finish(self, data: st.DataObject, reusable: bool, outcome: Outcome) -> None:
        connection = self.busy.pop(data.draw(st.integers(0, len(self.busy) - 1)))
        if self.pool.give_back(connection, self.now, outcome, reusable=reusable):
            self.idle.append(connection)
        state = self.pool._states[connection.target]
        if outcome is Outcome.OK:
            assert state.failures == 0
        assert state.ejected_until <= self.now + self.limits.ejected_max_s

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def origin_closes(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(self.idle))
        if self.pool.lost(connection):  # otherwise the next `expire` returns the connection for closing
            self.idle.remove(connection)

    @rule(origin=TARGETS, healthy=st.booleans(), timed_out=st.booleans())
    def check(self, origin: Target, healthy: bool, timed_out: bool) -> None:
        changed = self.pool.checked(origin, self.now, healthy=healthy, timed_out=timed_out)
        assert origin in self.ejected() or healthy
        assert not self.pool.checked(origin, self.now, healthy=healthy, timed_out=timed_out), (
            "the same result changes nothing"
        )
        assert not (changed and healthy and origin in self.ejected())

    @rule(origin=TARGETS, addresses=st.frozensets(ADDRESSES, max_size=1))
    def resolve(self, origin: Target, addresses: frozenset[str]) -> None:
        self.addresses[origin] = addresses
        self.pool.resolved(origin, addresses)

    @rule(how=st.sampled_from(["expire", "retire", "purge"]))
    def close(self, how: str) -> None:
        for connection in self.pool.expire(self.now) if how == "expire" else getattr(self.pool, how)():
            self.idle.remove(connection)
        assert how == "expire" or not self.idle
        assert all(sum(self.now - each.idle_since >= SURPLUS_S for each in s.idle) <= 2 for s in self.pool._list)

    # --- invariants ---------------------------------------------------------------------------------------------------

    @invariant()
    def counts_are_true(self) -> None:
        rows = self.pool.describe(self.now)
        assert sum(row["active"] for row in rows) == len(self.busy) + len(self.opening)
        assert sum(row["idle"] for row in rows) <= len(self.idle)
        assert all(row["active"] + row["idle"] <= 3 for row in rows)
        assert self.pool.waiting == len(self.queue) <= self.limits.waiting

    @invariant()
    def retries_stay_within_their_budget(self) -> None:
        assert self.retries <= PER_SECOND * (1 + self.now) + RATIO * self.requests + 1e-6


Life.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
