"""Admission control for client connections, used when the edge has reached its connection limit.

decide ─┬─ Admit       serve the connection, after evicting the given idle ones if there is no room
        ├─ Reject      accept it only to send a 503 response with the reason
        └─ Reset       reset it before the TLS handshake: too many connections are being rejected already

No I/O. Time is an argument, in seconds.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

#: Default limit on client connections. As idle TLS connections they use 66 MiB (measured) of a host's 256 MiB.
MAX_CLIENTS = 2048
#: Maximum number of concurrent connections that are accepted only to send a 503 response.
MAX_REJECTED = 64
#: Minimum time without a request, in seconds, before a connection may be evicted. It also protects new connections
#: whose TLS handshake is unfinished: 1 s allows four round trips of 250 ms.
QUIET = 1.0
#: Maximum number of connections evicted at a time, and minimum time in seconds from an unsuccessful search to the next
#: search; a search visits every connection.
EVICTED_AT_ONCE, SEARCH_EVERY = 32, 0.1


class Candidate(Protocol):
    """Connection that may be evicted in favour of a new one."""

    @property
    def quiet_since(self) -> float | None:
        """End of the last request, or time of acceptance, in seconds; None while a request is in flight."""


C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True, slots=True)
class Admit(Generic[C]):
    """Serve the connection after evicting these idle ones, which are sorted by idle time, longest first."""

    evict: tuple[C, ...] = ()


#: The most frequent decision, cached.
_ADMIT: Admit[Any] = Admit()


@dataclass(frozen=True, slots=True)
class Reject:
    """Send a 503 response with the reason, and close."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection immediately."""


class Admission:
    """Connection counters and limits: clients being served, and clients being rejected."""

    def __init__(self, limit: int = MAX_CLIENTS, max_rejected: int = MAX_REJECTED) -> None:
        """Create an admission control that serves at most *limit* connections and rejects *max_rejected* at a time."""
        self.limit, self._max_rejected = limit, max_rejected
        self.served = self.rejected = 0
        self._search_from = float("-inf")

    def __repr__(self) -> str:
        return f"<Admission served={self.served} of {self.limit} rejected={self.rejected}>"

    def decide(self, candidates: Iterable[C], now: float) -> Admit[C] | Reject | Reset:
        """Decide on a new connection and count it; *candidates* is iterated only if the limit is reached."""
        if self.served < self.limit:
            self.served += 1
            return _ADMIT
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
        """Record that an accepted connection has ended."""
        if rejected:
            self.rejected -= 1
        else:
            self.served -= 1
