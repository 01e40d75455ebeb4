"""State machine of a secondary zone: refresh, retry and expiry (RFC 1034 section 4.3.5, NOTIFY RFC 1996).

Nothing here opens a socket or reads a clock. `Secondary.next` returns an action; `nameserver.refresh` performs it and
reports the outcome. A round queries the primaries in order until one confirms our serial number or a newer version has
been transferred. A NOTIFY starts a round immediately; if it carries a newer serial number, the round begins with a
transfer. If an incremental transfer is unusable, the whole zone is transferred. An expired zone accepts any serial
number, so that it recovers even if the primary has lost its state.
"""

import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from dnsmessage import Name
from nameserver.changes import is_newer, serial_of

#: Default port of a primary.
PORT = 53
#: Bounds for the timers in the SOA record, in seconds, so that timers of zero do not cause a flood of queries and every
#: zone is checked at least every four weeks.
SHORTEST, LONGEST = 1.0, 28 * 86_400.0
#: Maximum fraction by which the wait before a refresh or retry is randomly shortened, so that many secondaries do not
#: query at the same time.
JITTER = 0.25
#: Backoff of a zone without data, in seconds: the first wait, which doubles with every failed round, and its maximum.
FIRST_RETRY, LAST_RETRY = 0.25, 60.0


@dataclass(frozen=True, slots=True)
class Primary:
    """A server from which the zone is transferred."""

    #: IPv4 address.
    address: str
    port: int = PORT
    #: Name of the TSIG key for queries and transfers; None: requests are not signed.
    key: Name | None = None

    def __str__(self) -> str:
        return self.address if self.port == PORT else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until the time *until*, or until a NOTIFY arrives."""

    until: float


@dataclass(frozen=True, slots=True)
class AskSerial:
    """Query *primary* for its SOA record; then call `serial_is` or `failed`."""

    primary: Primary


@dataclass(frozen=True, slots=True)
class Transfer:
    """Transfer the zone from *primary*, or only *changes*; then call `transferred`, `serial_is` or `failed`."""

    primary: Primary
    changes: bool


@dataclass(frozen=True, slots=True)
class Expire:
    """Stop serving the zone: no primary has confirmed it within the expiry time in its SOA record."""


Action = Wait | AskSerial | Transfer | Expire


@dataclass(slots=True)
class Secondary:
    """The state of one secondary zone; all times are seconds on one monotonic clock."""

    apex: Name
    #: Primaries in the order in which they are queried.
    primaries: Sequence[Primary]
    rng: Random
    #: Serial number of our version of the zone; None if there is no version.
    serial: int | None = field(default=None, init=False)
    #: When a primary last confirmed our serial number, or sent the zone.
    confirmed: float = field(default=0.0, init=False)
    expired: bool = field(default=False, init=False)
    #: Number of failed rounds since the zone was last confirmed.
    failures: int = field(default=0, init=False)
    #: Error message of the latest failure.
    trouble: str = field(default="", init=False)
    _due: float = field(default=0.0, init=False)
    _refresh: float = field(default=0.0, init=False)
    _retry: float = field(default=0.0, init=False)
    _expire: float = field(default=0.0, init=False)
    #: Primaries that have not been queried in this round; empty between rounds.
    _round: deque[Primary] = field(default_factory=deque, init=False)
    #: Whether the first primary in `_round` is asked for a transfer instead of its serial number.
    _transfer: bool = field(default=False, init=False)
    #: Whether that transfer is of the whole zone.
    _whole: bool = field(default=False, init=False)
    #: The latest NOTIFY that arrived during a round: the primary, and the serial number (None without an SOA record).
    _again: tuple[Primary, int | None] | None = field(default=None, init=False)

    def __repr__(self) -> str:
        state = "expired" if self.expired else "empty" if self.serial is None else f"serial={self.serial}"
        return f"<Secondary {self.apex} {state} asking={len(self._round)} failures={self.failures}>"

    @property
    def expires(self) -> float:
        """Time at which the zone expires unless a primary confirms it earlier."""
        return self.confirmed + self._expire

    @property
    def due(self) -> float:
        """Time at which the primaries are queried next unless a NOTIFY arrives earlier."""
        return self._due

    def restored(self, soa: bytes, confirmed: float) -> None:
        """Start with a zone restored from disk: its SOA RDATA, and when a primary last confirmed the zone."""
        self._take(soa, confirmed)
        self._due = confirmed  # due immediately: the primary may have changed in the meantime

    def next(self, now: float) -> Action:
        """Return the next action."""
        if self.serial is not None and not self.expired and now >= self.expires:
            self.expired = True
            return Expire()
        if not self._round:
            if now < self._due:
                left = self._due if self.serial is None or self.expired else min(self._due, self.expires)
                return Wait(left)
            self._round.extend(self.primaries)
            self._transfer = self._whole = False
        primary = self._round[0]
        if self.serial is None or self.expired:
            return Transfer(primary, changes=False)
        if self._transfer:
            return Transfer(primary, changes=not self._whole)
        return AskSerial(primary)

    def serial_is(self, serial: int, now: float) -> None:
        """Record the serial number that the primary returned to a query or an incremental transfer."""
        assert self.serial is not None  # noqa: S101 - `next` queries the serial number only if we have a zone
        if is_newer(serial, self.serial) and not self._transfer:
            self._transfer = True
        elif serial == self.serial:
            self._confirm(now)
        else:
            self.failed(f"expected serial {self.serial} or a newer one, got {serial}", now)

    def transferred(self, soa: bytes, now: float) -> None:
        """Record that a version with the SOA RDATA *soa* has been transferred and is being served."""
        self._take(soa, now)
        self._confirm(now)

    def failed(self, why: str, now: float, *, answered: bool = False) -> None:
        """Record that the action failed; *answered*: the primary answered the transfer, but the answer is unusable."""
        self.trouble = f"{self._round[0]}: {why}"
        if answered and self._transfer and not self._whole and self.serial is not None:
            self._whole = True
            return
        self._round.popleft()
        self._transfer = self._whole = False
        if self._round:
            return
        self.failures += 1
        first = min(FIRST_RETRY * 2 ** min(self.failures - 1, 16), LAST_RETRY)
        self._end_round(now + self._early(first if self.serial is None else self._retry))

    def notified(self, address: str, serial: int | None, now: float) -> bool:
        """Record a NOTIFY from *address*; return whether *address* is one of the primaries.

        *serial* is the serial number in the NOTIFY; None if the NOTIFY has no SOA record.
        """
        primary = next((each for each in self.primaries if each.address == address), None)
        if primary is None:
            return False
        if self._round:
            self._again = primary, serial
        else:
            self._start(primary, serial, now)
        return True

    def check_now(self, now: float) -> None:
        """Start a round now, unless a round is in progress."""
        self._due = min(self._due, now)

    def _start(self, primary: Primary, serial: int | None, now: float) -> None:
        newer = serial is None or self.serial is None or is_newer(serial, self.serial)
        if newer or self.expired:
            self._due = now
            self._round.extend((primary, *(each for each in self.primaries if each != primary)))
            self._transfer, self._whole = serial is not None, False

    def _confirm(self, now: float) -> None:
        self.confirmed, self.expired, self.failures, self.trouble = now, False, 0, ""
        self._end_round(now + self._early(self._refresh))

    def _end_round(self, due: float) -> None:
        self._due, self._transfer, self._whole = due, False, False
        self._round.clear()
        if self._again is not None:
            (primary, serial), self._again = self._again, None
            if serial is None or serial != self.serial:
                self._start(primary, serial, due)

    def _take(self, soa: bytes, confirmed: float) -> None:
        refresh, retry, expire = struct.unpack_from("!3I", soa, len(soa) - 16)
        self.serial, self.confirmed = serial_of(soa), confirmed
        self._refresh, self._retry = (min(max(each, SHORTEST), LONGEST) for each in (refresh, retry))
        self._expire = max(float(expire), SHORTEST)

    def _early(self, wait: float) -> float:
        return wait * (1 - JITTER * self.rng.random())
