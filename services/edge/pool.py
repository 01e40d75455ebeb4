"""The connection pool of one route: `take` decides, and whoever asked performs.

    take ─┬─ Use      an idle connection, the one used last (so that the others can age and go)
          ├─ Open     a new one to this target
          ├─ Wait     all are busy: queued; `next_waiter` says when it is its turn, first come, first served
          └─ Refuse   too many wait already

A target that fails several times in a row is ejected for a while.  Then a single request probes it; the others follow
only when that one succeeds.  No socket, no clock: the time is an argument, in seconds.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edge.targets import Target

#: Requests that a target may get in a row because it has an idle connection: one that is there beats a handshake, but
#: not for ever, or every other target would starve.
LEAD = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """How large and how old a pool may get."""

    #: Connections to one target, idle ones included.
    per_target: int = 64
    #: Idle connections kept to one target.
    idle: int = 32
    #: Seconds that an idle connection is kept: less than an origin's keep-alive (75 s), so that we close first and
    #: no request meets a connection that is just being closed.
    idle_s: float = 60.0
    #: Seconds after which a connection is not used again: rotates certificates and addresses through the pool.
    age_s: float = 300.0
    #: Requests that may wait for a connection.
    waiting: int = 1024
    #: Failures in a row before a target is ejected, and the seconds of its first and its longest ejection.
    failures: int = 3
    ejected_s: float = 1.0
    ejected_max_s: float = 30.0


class Outcome(Enum):
    """What a request says about the target that it went to."""

    #: A response began.
    OK = "ok"
    #: The connection could not be opened, or ended or stayed silent before a response began.
    FAILED = "failed"
    #: Neither: the client left first.
    UNKNOWN = "unknown"


@dataclass(slots=True, eq=False)
class Connection:
    """One upstream connection, as the pool sees it."""

    target: Target
    opened: float
    #: Which client certificate it was opened with; one of an older certificate is not used again.
    generation: int
    #: The IP address that it leads to.
    address: str = ""
    idle_since: float = 0.0
    uses: int = 0
    #: The socket, for whoever performs.
    upstream: Any = None


@dataclass(frozen=True, slots=True)
class Use:
    """Take this idle connection."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Open:
    """Open a connection to *target*; then call `opened` or `failed`."""

    target: Target


@dataclass(frozen=True, slots=True)
class Wait:
    """All connections are busy, and the request is in the queue."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request is not queued."""

    reason: str


@dataclass(slots=True)
class _TargetState:
    target: Target
    weight: int = 1
    idle: list[Connection] = field(default_factory=list)
    #: Connections being opened or in use.
    busy: int = 0
    #: Requests so far, as far as they matter for taking turns.
    turns: float = 0.0
    failures: int = 0
    ejected_until: float = 0.0
    #: Whether the last health check was passed; None without checks.
    healthy: bool | None = None
    #: Whether the request that probes an ejected target is under way.
    probing: bool = False
    #: The addresses that its name has; None before the first look-up.
    addresses: frozenset[str] | None = None
    opened: int = 0
    reused: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.busy + len(self.idle)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a queued request asked for."""

    avoid: frozenset[Target]
    fresh: bool


class Pool:
    """Connections of one route, and the requests that wait for one."""

    def __init__(self, targets: Sequence[Target], limits: Limits | None = None, weights: Sequence[int] = ()) -> None:
        """Make an empty pool over *targets*, which get requests in proportion to *weights*."""
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
        """Requests in the queue."""
        return len(self._queue)

    def take(
        self, waiter: Hashable, now: float, avoid: frozenset[Target] = frozenset(), *, fresh: bool = False
    ) -> Use | Open | Wait | Refuse:
        """Say what a request should do.

        Args:
            waiter: identifies the request in the queue.
            now: seconds.
            avoid: targets that failed this request already; they are asked only when there is no other.
            fresh: no idle connection will do, since one that the request went over was dead.
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
        """A queued request has no use for a connection any more; return whether it was in the queue."""
        return self._queue.pop(waiter, None) is not None

    def next_waiter(self, now: float) -> tuple[Any, Use | Open] | None:
        """Return the first request of the queue that can be served now, and what it should do; None if none can."""
        for waiter, wish in self._queue.items():
            decision = self._choose(now, wish.avoid, fresh=wish.fresh)
            if decision is not None:
                del self._queue[waiter]
                return waiter, decision
            if not wish.avoid:
                return None  # nothing is free; who waits behind is no less choosy
        return None

    def opened(self, target: Target, now: float, address: str = "") -> Connection:
        """The connection that `Open` asked for exists, and is in use."""
        self._states[target].opened += 1
        return Connection(target, now, self.generation, address, uses=1)

    def failed(self, target: Target, now: float) -> None:
        """The connection that `Open` asked for could not be opened."""
        state = self._states[target]
        state.busy -= 1
        state.failed += 1
        self._judge(state, now, Outcome.FAILED)

    def cancelled(self, target: Target, now: float) -> None:
        """The connection that `Open` asked for is not wanted any more."""
        state = self._states[target]
        state.busy -= 1
        self._judge(state, now, Outcome.UNKNOWN)

    def give_back(self, connection: Connection, now: float, outcome: Outcome, *, reusable: bool) -> bool:
        """A request is done with *connection*; return whether it stays open, idle."""
        state = self._states[connection.target]
        state.busy -= 1
        self._judge(state, now, outcome)
        if not reusable or len(state.idle) >= self.limits.idle or not self._usable(state, connection, now, idle=False):
            return False
        connection.idle_since = now
        state.idle.append(connection)
        return True

    def lost(self, connection: Connection) -> bool:
        """An idle connection was closed by the other side; return whether it was idle here."""
        state = self._states.get(connection.target)
        if state is None or connection not in state.idle:
            return False
        state.idle.remove(connection)
        return True

    def checked(self, target: Target, now: float, *, healthy: bool) -> bool:
        """A health check ended; return whether that changed anything.

        A target that fails is ejected until a check is passed; the next request then is the probe.
        """
        state = self._states[target]
        changed = healthy is not (state.healthy is not False)
        state.healthy = healthy
        if not healthy:
            state.failures, state.ejected_until = max(state.failures, self.limits.failures), now
        elif changed:
            state.failures, state.ejected_until, state.probing = 0, 0.0, False
        return changed

    def resolved(self, target: Target, addresses: frozenset[str]) -> None:
        """The name of *target* has these addresses; connections to others are drained."""
        self._states[target].addresses = addresses

    def expire(self, now: float) -> list[Connection]:
        """Return the idle connections that may not be used any more; they leave the pool."""
        gone, self._dropped = self._dropped, []
        for state in self._states.values():
            usable = [self._usable(state, each, now) for each in state.idle]
            if not all(usable):
                gone.extend(each for each, good in zip(state.idle, usable, strict=True) if not good)
                state.idle = [each for each, good in zip(state.idle, usable, strict=True) if good]
        return gone

    def purge(self) -> list[Connection]:
        """Return every idle connection; they leave the pool.  Those in use go on."""
        gone, self._dropped = self._dropped, []
        for state in self._states.values():
            gone.extend(state.idle)
            state.idle = []
        return gone

    def retire(self) -> list[Connection]:
        """The client certificate changed: connections made with the old one are drained, not cut."""
        self.generation += 1
        return self.purge()

    def in_use(self, target: Target) -> bool:
        """Return whether there is any connection to *target*."""
        return self._states[target].total > 0

    def describe(self, now: float) -> list[dict[str, Any]]:
        """Return counts by target, for people."""
        return [
            {
                "name": str(target),
                "idle": len(state.idle),
                "active": state.busy,
                "opened": state.opened,
                "reused": state.reused,
                "failed": state.failed,
                "ejected": state.failures >= self.limits.failures
                and (state.ejected_until > now or state.healthy is False),
            }
            for target, state in self._states.items()
        ]

    def _choose(self, now: float, avoid: frozenset[Target], *, fresh: bool) -> Use | Open | None:
        """Pick the target with the fewest busy connections that has room; among equals they take turns.

        Ejected targets are asked only when all are ejected, and those of *avoid* only when there is no other.
        """
        states = self._list if not avoid else [s for s in self._list if s.target not in avoid] or self._list
        admitted = (
            [s for s in states if s.failures < self.limits.failures or self._may_probe(s, now)]
            or [s for s in states if s.healthy]
            or states
        )
        best: _TargetState | None = None
        rank: tuple[float, float] = (0, 0)
        for state in admitted:
            if state.idle or state.busy + len(state.idle) < self.limits.per_target:
                # A target with an idle connection may be ahead by a few turns, and no more.
                ahead = state.turns - LEAD if state.idle and not fresh else state.turns
                mine = (state.busy / state.weight, ahead)
                if best is None or mine < rank:
                    best, rank = state, mine
        return None if best is None else self._take_from(best, now, fresh=fresh)

    def _take_from(self, state: _TargetState, now: float, *, fresh: bool) -> Use | Open:
        state.busy += 1
        if state.failures >= self.limits.failures:
            state.probing = True
        # A target that was ejected for long does not get every request until it has caught up.
        state.turns += 1 / state.weight
        self._turns = max(self._turns, state.turns)
        state.turns = max(state.turns, self._turns - LEAD)
        while state.idle:
            connection = state.idle.pop()
            if not fresh and self._usable(state, connection, now):
                connection.uses += 1
                state.reused += 1
                return Use(connection)
            self._dropped.append(connection)  # `expire` hands it to whoever closes it
            if fresh:
                break  # one made room for the new one
        return Open(state.target)

    @staticmethod
    def _may_probe(state: _TargetState, now: float) -> bool:
        """Whether the ejection is over, and no request probes the target yet."""
        return state.ejected_until <= now and not state.probing and state.healthy is not False

    def _judge(self, state: _TargetState, now: float, outcome: Outcome) -> None:
        if outcome is not Outcome.UNKNOWN or not state.busy:
            state.probing = False
        if outcome is Outcome.OK:
            state.failures, state.ejected_until = 0, 0.0
        elif outcome is Outcome.FAILED:
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
