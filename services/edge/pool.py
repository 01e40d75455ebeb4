"""The connection pool of one route: decides in one function, `decide`; who performs is `edge.upstream`.

    decide ─┬─ Use      an idle connection, the one used last (so that the others can age and go)
            ├─ Open     a new one to this target
            ├─ Wait     all are busy: come back when told
            └─ Refuse   too many wait already

No socket, no clock: the time is an argument, in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.routes import Target


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
    #: Failures in a row before a target is set aside, and for how many seconds at first and at most.
    failures: int = 3
    aside_s: float = 1.0
    aside_max_s: float = 30.0


@dataclass(slots=True, eq=False)
class Connection:
    """One upstream connection, as the pool sees it."""

    target: Target
    opened: float
    #: Which client certificate it was opened with; an older one is not used again.
    generation: int
    idle_since: float = 0.0
    uses: int = 0


@dataclass(frozen=True, slots=True)
class Use:
    """Take this idle connection."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Open:
    """Open a connection to *target*; then `opened` or `failed`."""

    target: Target


@dataclass(frozen=True, slots=True)
class Wait:
    """All connections are busy: try again when one was given back."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not queue."""

    reason: str


@dataclass(slots=True)
class _TargetState:
    idle: list[Connection] = field(default_factory=list)
    #: Connections being opened or in use.
    busy: int = 0
    failures: int = 0
    aside_until: float = 0.0
    opened: int = 0
    reused: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        return self.busy + len(self.idle)


class Pool:
    """Connections of one route."""

    def __init__(self, targets: Sequence[Target], limits: Limits | None = None) -> None:
        """Make an empty pool over *targets*."""
        self.limits = limits or Limits()
        self.generation = 0
        self.waiting = 0
        self._states = {target: _TargetState() for target in targets}
        self._turn = 0
        self._dropped: list[Connection] = []

    def __repr__(self) -> str:
        parts = [f"{t}[busy={s.busy} idle={len(s.idle)} failures={s.failures}]" for t, s in self._states.items()]
        return f"<Pool {' '.join(parts)} waiting={self.waiting} generation={self.generation}>"

    def decide(self, now: float, avoid: frozenset[Target] = frozenset()) -> Use | Open | Wait | Refuse:
        """Say what a request should do; counts what it decides.

        Args:
            now: seconds.
            avoid: targets that failed this request already.
        """
        target = self._choose(now, avoid)
        if target is None:
            if self.waiting >= self.limits.waiting:
                return Refuse(f"{self.waiting} requests wait for a connection already")
            return Wait()
        state = self._states[target]
        state.busy += 1
        while state.idle:
            connection = state.idle.pop()
            if self._usable(connection, now):
                connection.uses += 1
                state.reused += 1
                return Use(connection)
            self._dropped.append(connection)  # past its time: `expire` hands it to who closes it
        return Open(target)

    def opened(self, target: Target, now: float) -> Connection:
        """The connection that `Open` asked for is there, and in use."""
        state = self._states[target]
        state.opened += 1
        state.failures, state.aside_until = 0, 0.0
        return Connection(target, now, self.generation, uses=1)

    def failed(self, target: Target, now: float) -> None:
        """The connection that `Open` asked for did not come about."""
        state = self._states[target]
        state.busy -= 1
        state.failed += 1
        state.failures += 1
        if state.failures >= self.limits.failures:
            over = min(state.failures - self.limits.failures, 16)
            state.aside_until = now + min(self.limits.aside_max_s, self.limits.aside_s * 2**over)

    def give_back(self, connection: Connection, now: float, *, reusable: bool) -> bool:
        """A request is done with *connection*; return whether it stays open, idle."""
        state = self._states[connection.target]
        state.busy -= 1
        if not reusable or len(state.idle) >= self.limits.idle or not self._usable(connection, now, idle=False):
            return False
        connection.idle_since = now
        state.idle.append(connection)
        return True

    def lost(self, connection: Connection) -> bool:
        """An idle connection was closed by the other side; return whether it was idle here."""
        state = self._states.get(connection.target)  # another route's pool has other targets
        if state is None or connection not in state.idle:
            return False
        state.idle.remove(connection)
        return True

    def expire(self, now: float) -> list[Connection]:
        """Return the idle connections whose time is over; they are no longer ours."""
        gone, self._dropped = self._dropped, []
        for state in self._states.values():
            old = [each for each in state.idle if not self._usable(each, now)]
            state.idle = [each for each in state.idle if each not in old]
            gone.extend(old)
        return gone

    def purge(self) -> list[Connection]:
        """Return every idle connection; they are no longer ours.  Those in use go on."""
        gone, self._dropped = self._dropped, []
        for state in self._states.values():
            gone.extend(state.idle)
            state.idle = []
        return gone

    def retire(self) -> list[Connection]:
        """The client certificate changed: connections made with the old one are drained, not cut."""
        self.generation += 1
        return self.purge()

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
                "aside": state.aside_until > now,
            }
            for target, state in self._states.items()
        ]

    def _choose(self, now: float, avoid: frozenset[Target]) -> Target | None:
        """Return the target with the fewest busy connections that has room.

        Among equals one with an idle connection goes first (a connection that is there beats a handshake), then they
        take turns.
        """
        targets = [t for t in self._states if t not in avoid] or list(self._states)
        up = [t for t in targets if self._states[t].aside_until <= now] or targets  # all set aside: try regardless
        room = [t for t in up if self._states[t].idle or self._states[t].total < self.limits.per_target]
        if not room:
            return None
        self._turn += 1
        order = [room[(i + self._turn) % len(room)] for i in range(len(room))]
        return min(order, key=lambda t: (self._states[t].busy, not self._states[t].idle))

    def _usable(self, connection: Connection, now: float, *, idle: bool = True) -> bool:
        if connection.generation != self.generation or now - connection.opened >= self.limits.age_s:
            return False
        return not idle or now - connection.idle_since < self.limits.idle_s
