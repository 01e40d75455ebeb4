"""Which client connections are accepted when there are more than the edge serves.

    decide ─┬─ Admit       there is room, or there will be once these idle connections are evicted
            ├─ Reject      accept it only to answer 503 with the reason
            └─ Reset       reset it before it costs a handshake: many are being rejected already

No socket, no clock: the time is an argument, in seconds.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

#: Client connections served at one time: as idle TLS connections they take 66 MiB (measured), of the 256 that a host has.
MAX_CLIENTS = 2048
#: Connections at one time that only exist to be answered 503.
MAX_REJECTED = 64
#: Seconds without a request after which a connection may be evicted, also before its first request, when its TLS handshake
#: may be unfinished: four round trips of a quarter of a second.
QUIET = 1.0
#: Connections evicted at one time, and the seconds between two searches that found too few: each looks at all.
EVICTED_AT_ONCE, SEARCH_EVERY = 32, 0.1


class Candidate(Protocol):
    """A connection that may be evicted for another."""

    @property
    def quiet_since(self) -> float | None:
        """When its last request ended, or it was accepted; None while a request is under way."""


C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True, slots=True)
class Admit(Generic[C]):
    """Serve it, and evict these idle connections for it, the longest quiet first."""

    evict: tuple[C, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """Answer 503 with the reason, and close."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset it at once."""


class Admission:
    """How many client connections are served, and how many are being rejected."""

    def __init__(self, limit: int = MAX_CLIENTS, max_rejected: int = MAX_REJECTED) -> None:
        """Serve at most *limit* connections at one time."""
        self.limit, self._max_rejected = limit, max_rejected
        self.served = self.rejected = 0
        self._search_from = float("-inf")

    def __repr__(self) -> str:
        return f"<Admission served={self.served} of {self.limit} rejected={self.rejected}>"

    def decide(self, candidates: Iterable[C], now: float) -> Admit[C] | Reject | Reset:
        """Decide about a new connection, and count it; *candidates* are looked at only when there is no room."""
        if self.served < self.limit:
            self.served += 1
            return Admit()
        if now >= self._search_from:
            quiet = (
                (since, each) for each in candidates if (since := each.quiet_since) is not None and since + QUIET <= now
            )
            evict = tuple(each for _, each in heapq.nsmallest(EVICTED_AT_ONCE, quiet, key=lambda pair: pair[0]))
            if evict:
                self.served += 1
                return Admit(evict)
            self._search_from = now + SEARCH_EVERY
        if self.rejected < self._max_rejected:
            self.rejected += 1
            return Reject()
        return Reset()

    def left(self, *, rejected: bool) -> None:
        """A connection that was accepted has ended."""
        if rejected:
            self.rejected -= 1
        else:
            self.served -= 1
