"""Connection pool of one route, without I/O: it returns actions, which `edge.route_pool` performs.

    take ─┬─ Use      reuse the idle connection that was used most recently, so that the others reach their idle limit
          ├─ Open     open a new connection to the given target
          ├─ Wait     every connection is busy: the request is queued (FIFO); `next_waiter` returns it when it can run
          └─ Refuse   the queue is full, or no target responds

A target that fails several times in a row is ejected for a cooldown. After the cooldown, a single request probes the
target; the target receives other requests only after the probe has succeeded. If all targets are ejected, requests
still go to those that fail quickly; if all of them time out, requests are refused, so that clients need not wait for a
time-out. Time is an argument, in seconds.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edge.targets import Target

#: Number of turns by which a target with an idle connection may get ahead of the others. Reusing a connection saves a
#: handshake, but without this bound the other targets would starve.
LEAD = 8
#: How long idle connections beyond `Limits.idle` are kept, in seconds. Closing them immediately would make each
#: burst of requests open new connections: with 64 concurrent requests, one in four waited for a new connection.
SURPLUS_S = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Size and age limits of a connection pool."""

    #: Maximum number of connections to one target, including idle ones.
    per_target: int = 64
    #: Maximum number of idle connections kept open to one target for longer than `SURPLUS_S`; 0 prevents all reuse.
    idle: int = 32
    #: Idle time-out of a pooled connection, in seconds. It is shorter than the origin's keep-alive time-out (75 s), so
    #: that the edge closes first and no request is sent on a connection that the origin is closing.
    idle_s: float = 60.0
    #: Maximum age of a connection in seconds; an older connection is not reused. The limit makes the pool pick up
    #: new certificates and addresses.
    age_s: float = 300.0
    #: Maximum number of queued requests.
    waiting: int = 1024
    #: Number of consecutive failures after which a target is ejected.
    failures: int = 3
    #: Duration of the first ejection, in seconds.
    ejected_s: float = 1.0
    #: Maximum duration of an ejection, in seconds.
    ejected_max_s: float = 30.0


class Outcome(Enum):
    """Result of a request, from which the pool judges the target's health."""

    #: The target began a response.
    OK = "ok"
    #: The connection could not be opened, or it was closed before a response began.
    FAILED = "failed"
    #: Like `FAILED`, but the failure was detected only by a time-out.
    TIMED_OUT = "timed out"
    #: The client disconnected or stalled before the target responded; this does not affect the target's health.
    UNKNOWN = "unknown"


@dataclass(slots=True, eq=False)
class Connection:
    """State of one upstream connection in the pool."""

    target: Target
    opened: float
    #: Generation of the client certificate used for this connection; an older generation prevents reuse.
    generation: int
    #: Remote IP address.
    address: str = ""
    idle_since: float = 0.0
    uses: int = 0
    #: The connection's `Upstream` protocol, stored for `RoutePool`; the pool itself never uses it.
    upstream: Any = None


@dataclass(frozen=True, slots=True)
class Use:
    """Send the request on this idle connection."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Open:
    """Open a connection to *target*; then call `opened`, `failed` or `cancelled`."""

    target: Target


@dataclass(frozen=True, slots=True)
class Wait:
    """The request has been queued, because every connection is busy."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Reject the request, because the queue is full or no target responds."""

    reason: str


@dataclass(slots=True)
class _TargetState:
    target: Target
    weight: int = 1
    idle: list[Connection] = field(default_factory=list)
    #: Number of connections that are being opened or are in use.
    busy: int = 0
    #: Requests sent to this target, divided by its weight; among equally busy targets, the lowest count is next. After
    #: an ejection the count is raised, so that the target does not receive all requests until it has caught up.
    turns: float = 0.0
    failures: int = 0
    ejected_until: float = 0.0
    #: Whether the last failure was a time-out.
    unresponsive: bool = False
    #: Result of the last health check; None before the first check.
    healthy: bool | None = None
    #: Whether a request that probes the ejected target is in flight.
    probing: bool = False
    #: IP addresses of the target's name; None before the first look-up.
    addresses: frozenset[str] | None = None
    opened: int = 0
    reused: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.busy + len(self.idle)


@dataclass(frozen=True, slots=True)
class _Wish:
    """Constraints of a queued request: targets to avoid, and whether it needs a new connection."""

    avoid: frozenset[Target]
    fresh: bool


class Pool:
    """Connections of one route, and the queue of requests that wait for a connection."""

    def __init__(self, targets: Sequence[Target], limits: Limits | None = None, weights: Sequence[int] = ()) -> None:
        """Create an empty pool that distributes requests over *targets* in proportion to *weights* (empty: equally)."""
        self.limits = limits or Limits()
        self.generation = 0
        self._states = {
            target: _TargetState(target, weight)
            for target, weight in zip(targets, weights or (1,) * len(targets), strict=True)
        }
        self._list = list(self._states.values())
        self._turns = 0.0
        self._queue: OrderedDict[Hashable, _Wish] = OrderedDict()
        self._dropped: list[Connection] = []

    def __repr__(self) -> str:
        parts = [f"{t}[busy={s.busy} idle={len(s.idle)} failures={s.failures}]" for t, s in self._states.items()]
        return f"<Pool {' '.join(parts)} waiting={self.waiting} generation={self.generation}>"

    @property
    def waiting(self) -> int:
        """Number of queued requests."""
        return len(self._queue)

    def take(
        self, waiter: Hashable, now: float, avoid: frozenset[Target] = frozenset(), *, fresh: bool = False
    ) -> Use | Open | Wait | Refuse:
        """Return the next action for a request: `Use`, `Open`, `Wait` or `Refuse`.

        Args:
            waiter: identifies the request in the queue.
            now: current time in seconds.
            avoid: targets that have already failed this request; used only if there is no other target.
            fresh: whether the request needs a new connection, because it has already failed on a reused one.
        """
        if not self._queue:
            decision = self._choose(now, avoid, fresh=fresh)
            if decision is not None:
                return decision
        if len(self._queue) >= self.limits.waiting:
            return Refuse(f"{len(self._queue)} requests already wait for a connection")
        self._queue[waiter] = _Wish(avoid, fresh)
        return Wait()

    def leave(self, waiter: Hashable) -> bool:
        """Remove a request from the queue; return whether it was queued."""
        return self._queue.pop(waiter, None) is not None

    def next_waiter(self, now: float) -> tuple[Any, Use | Open | Refuse] | None:
        """Remove and return the first queued request that can proceed, with its action; None if all must wait."""
        for waiter, wish in self._queue.items():
            decision = self._choose(now, wish.avoid, fresh=wish.fresh)
            if decision is not None:
                del self._queue[waiter]
                return waiter, decision
            if not wish.avoid:
                return None  # no connection is free, so the requests behind this one cannot be served either
        return None

    def opened(self, target: Target, now: float, address: str = "") -> Connection:
        """Record that the connection requested by `Open` is established; return it, in use."""
        self._states[target].opened += 1
        return Connection(target, now, self.generation, address, uses=1)

    def failed(self, target: Target, now: float, outcome: Outcome = Outcome.FAILED) -> None:
        """Record that the connection requested by `Open` could not be established: `FAILED` or `TIMED_OUT`."""
        state = self._states[target]
        state.busy -= 1
        state.failed += 1
        self._judge(state, now, outcome)

    def cancelled(self, target: Target, now: float) -> None:
        """Record that the connection requested by `Open` was abandoned before it was established."""
        state = self._states[target]
        state.busy -= 1
        self._judge(state, now, Outcome.UNKNOWN)

    def give_back(self, connection: Connection, now: float, outcome: Outcome, *, reusable: bool) -> bool:
        """Return *connection* to the pool after a request; return False if the caller must close it."""
        state = self._states[connection.target]
        state.busy -= 1
        self._judge(state, now, outcome)
        if not (reusable and self.limits.idle and self._usable(state, connection, now, idle=False)):
            return False
        connection.idle_since = now
        state.idle.append(connection)
        return True

    def lost(self, connection: Connection) -> bool:
        """Remove an idle connection that the origin has closed; return whether it was idle in this pool."""
        state = self._states.get(connection.target)
        if state is None or connection not in state.idle:
            return False
        state.idle.remove(connection)
        return True

    def checked(self, target: Target, now: float, *, healthy: bool, timed_out: bool = False) -> bool:
        """Record the result of a health check; return whether the target's health changed.

        A target that fails a check is ejected until a check succeeds.
        """
        state = self._states[target]
        changed = healthy is not (state.healthy is not False)
        state.healthy = healthy
        if not healthy:
            state.failures, state.ejected_until = max(state.failures, self.limits.failures), now
            state.unresponsive = timed_out
        elif changed:
            state.failures, state.ejected_until, state.probing, state.unresponsive = 0, 0.0, False, False
        return changed

    def has_alternative(self, target: Target) -> bool:
        """Return whether at least one other target than *target* is not ejected."""
        return any(state.failures < self.limits.failures for state in self._list if state.target != target)

    def resolved(self, target: Target, addresses: frozenset[str]) -> None:
        """Record the current *addresses* of the target's name; connections to any other address are drained."""
        self._states[target].addresses = addresses

    def expire(self, now: float) -> list[Connection]:
        """Remove idle connections that must not be reused, and return them for the caller to close."""
        gone, self._dropped = self._dropped, []
        for state in self._states.values():
            surplus = len(state.idle) - self.limits.idle
            kept = [
                each for place, each in enumerate(state.idle)  # the first connection has been idle the longest
                if self._usable(state, each, now) and (place >= surplus or now - each.idle_since < SURPLUS_S)
            ]  # fmt: skip
            if len(kept) < len(state.idle):
                gone.extend(each for each in state.idle if each not in kept)
                state.idle = kept
        return gone

    def purge(self) -> list[Connection]:
        """Remove and return all idle connections; connections in use are not affected."""
        gone, self._dropped = self._dropped, []
        for state in self._states.values():
            gone.extend(state.idle)
            state.idle = []
        return gone

    def retire(self) -> list[Connection]:
        """Start a new certificate generation: return idle connections for closing, and let those in use finish."""
        self.generation += 1
        return self.purge()

    def in_use(self, target: Target) -> bool:
        """Return whether the pool has any connection to *target*, idle or busy."""
        return self._states[target].total > 0

    def describe(self, now: float) -> list[dict[str, Any]]:
        """Return the connection counts for the admin page, keyed by target."""
        return [
            {
                "name": str(target),
                "idle": len(state.idle),
                "active": state.busy,
                "opened": state.opened,
                "reused": state.reused,
                "failed": state.failed,
                "healthy": state.healthy is not False,
                "ejected": state.failures >= self.limits.failures
                and (state.ejected_until > now or state.healthy is False),
            }
            for target, state in self._states.items()
        ]

    def _choose(self, now: float, avoid: frozenset[Target], *, fresh: bool) -> Use | Open | Refuse | None:
        """Choose the least busy target, relative to its weight, that has capacity; equally busy targets take turns.

        Ejected targets are used only if all targets are ejected, and targets in *avoid* only if there is no other.
        Return None if the request must wait, and `Refuse` if the request would only run into another time-out.
        """
        states = self._list if not avoid else [s for s in self._list if s.target not in avoid] or self._list
        admitted = (
            [s for s in states if s.failures < self.limits.failures or self._may_probe(s, now)]
            or [s for s in states if s.healthy]
            or [s for s in states if not s.unresponsive]
        )
        if not admitted:
            return Refuse("no origin responds")
        best: _TargetState | None = None
        rank: tuple[float, float] = (0, 0)
        for state in admitted:
            if state.idle or state.busy + len(state.idle) < self.limits.per_target:
                # A target with an idle connection may get ahead of the others by at most LEAD turns.
                ahead = state.turns - LEAD if state.idle and not fresh else state.turns
                mine = (state.busy / state.weight, ahead)
                if best is None or mine < rank:
                    best, rank = state, mine
        return None if best is None else self._take_from(best, now, fresh=fresh)

    def _take_from(self, state: _TargetState, now: float, *, fresh: bool) -> Use | Open:
        state.busy += 1
        if state.failures >= self.limits.failures:
            state.probing = True
        # After a long ejection, a target must not receive all requests until its turn count has caught up.
        state.turns += 1 / state.weight
        self._turns = max(self._turns, state.turns)
        state.turns = max(state.turns, self._turns - LEAD)
        while state.idle:
            connection = state.idle.pop()
            if not fresh and self._usable(state, connection, now):
                connection.uses += 1
                state.reused += 1
                return Use(connection)
            self._dropped.append(connection)  # the next `expire` returns it to the caller, which closes it
            if fresh:
                break  # closing one idle connection is enough to open a new one
        return Open(state.target)

    @staticmethod
    def _may_probe(state: _TargetState, now: float) -> bool:
        """Return whether the ejection has ended and no other request is probing the target."""
        return state.ejected_until <= now and not state.probing and state.healthy is not False

    def _judge(self, state: _TargetState, now: float, outcome: Outcome) -> None:
        if outcome is not Outcome.UNKNOWN or not state.busy:
            state.probing = False
        if outcome is Outcome.OK:
            state.failures, state.ejected_until, state.unresponsive = 0, 0.0, False
        elif outcome is not Outcome.UNKNOWN:
            state.unresponsive = outcome is Outcome.TIMED_OUT
            state.failures += 1
            if state.failures >= self.limits.failures:
                over = min(state.failures - self.limits.failures, 16)
                state.ejected_until = now + min(self.limits.ejected_max_s, self.limits.ejected_s * 2**over)

    def _usable(self, state: _TargetState, connection: Connection, now: float, *, idle: bool = True) -> bool:
        limits = self.limits
        if connection.generation != self.generation or now - connection.opened >= limits.age_s:
            return False
        if state.addresses is not None and connection.address not in state.addresses:
            return False
        return not idle or now - connection.idle_since < limits.idle_s
