"""Which client connections are let in when many come.

    decide ─┬─ Admit       there is room, or there will be once these idle connections are closed
            ├─ TurnAway    let it in to hear 503 and why
            └─ Reset       cut it before it costs a handshake: many are being turned away already

No socket, no clock: the time is an argument, in seconds.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

#: Client connections at one time: as idle TLS connections they take 66 MiB (measured), of the 256 that a host has.
MOST = 2048
#: Connections at one time that are only there to be told that we are full.
TURNED_AWAY = 64
#: Seconds after which a connection between two requests, or before its first (its TLS handshake may be unfinished), may be
#: closed for another: four round trips of a quarter of a second.
QUIET = 1.0
#: Quiet connections closed at one time, and the seconds between two searches that found too few: each looks at all.
CLOSED_AT_ONCE, SEARCH_EVERY = 32, 0.1


class Guest(Protocol):
    """A connection that was let in."""

    @property
    def quiet_since(self) -> float | None:
        """When its last request ended, or it came in; None while a request is under way."""


G = TypeVar("G", bound=Guest)


@dataclass(frozen=True, slots=True)
class Admit(Generic[G]):
    """Let it in and close *instead* for it: connections that lie idle, the longest quiet first."""

    instead: tuple[G, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnAway:
    """Let it in, answer 503 and close."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Cut it."""


class Admission:
    """The count of connections, and what follows from it for the next one."""

    def __init__(self, most: int = MOST, turned_away: int = TURNED_AWAY) -> None:
        self.most = most
        #: Connections that are served, and that are being told to come back later.
        self.served = self.turned_away = 0
        self._turned_away_most = turned_away
        self._search_from = float("-inf")

    def __repr__(self) -> str:
        return f"<Admission served={self.served} of {self.most} turned_away={self.turned_away}>"

    def decide(self, guests: Iterable[G], now: float) -> Admit[G] | TurnAway | Reset:
        """Say what to do with one connection more, and count it; *guests* are looked at only when there is no room."""
        if self.served < self.most:
            self.served += 1
            return Admit()
        if now >= self._search_from:
            quiet = (
                (since, guest) for guest in guests if (since := guest.quiet_since) is not None and since + QUIET <= now
            )
            instead = tuple(guest for _, guest in heapq.nsmallest(CLOSED_AT_ONCE, quiet, key=lambda pair: pair[0]))
            if instead:
                self.served += 1
                return Admit(instead)
            self._search_from = now + SEARCH_EVERY
        if self.turned_away < self._turned_away_most:
            self.turned_away += 1
            return TurnAway()
        return Reset()

    def left(self, *, turned_away: bool) -> None:
        """A connection that was let in has ended."""
        if turned_away:
            self.turned_away -= 1
        else:
            self.served -= 1
