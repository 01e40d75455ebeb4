"""The resolver's cache: RRsets and negative answers with expiry and trust rank (RFC 2181 section 5.4.1, RFC 2308).

The caller passes the time as an argument. The number of entries is bounded; the least recently used entry is evicted.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from dnsmessage import Name, Record

#: Maximum number of cache entries (RRsets and negative answers).
MAX_ENTRIES = 100_000
#: Maximum lifetime of an entry in seconds (one week), even if its TTL is longer (RFC 8767 section 4).
MAX_TTL = 604_800
#: Maximum lifetime of a negative answer in seconds (RFC 2308 section 5 recommends one to three hours).
MAX_NEGATIVE_TTL = 10_800
#: TTL in seconds of an expired answer that is returned for lack of a fresh one (RFC 8767 section 4 recommends 30 s).
STALE_TTL = 30
#: Pseudo record type for "the name does not exist", which covers every type (RFC 8020).
NO_NAME = 0

Key = tuple[bytes, int]


class Rank(IntEnum):
    """Trust rank of cached data; unexpired data is never replaced by lower-ranked data (RFC 2181 section 5.4.1)."""

    GLUE = 1
    REFERRAL = 2
    ANSWER = 3
    AUTHORITATIVE = 4


@dataclass(frozen=True, slots=True)
class Negative:
    """A negative answer: the name does not exist, or has no record of the type."""

    rcode: int
    #: SOA record of the zone that denied the name, which clients need for their own cache; None if the reply had none.
    soa: Record | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One cached RRset or negative answer with its lifetime."""

    rank: Rank
    #: Time when the entry was stored, in seconds on the caller's clock.
    since: float
    #: Lifetime in seconds, counted from `since`.
    ttl: int
    records: tuple[Record, ...]
    negative: Negative | None = None

    @property
    def expires(self) -> float:
        """Time when the entry expires, in seconds on the caller's clock."""
        return self.since + self.ttl

    def left(self, now: float) -> int:
        """Return the remaining TTL in seconds, rounded to the nearest second.

        On average, clients then keep the record exactly as long as this cache does.
        """
        return max(0, self.ttl - math.floor(now - self.since + 0.5))

    def until(self, now: float) -> float:
        """Return the time when `left` next decreases or the entry expires."""
        return self.since + min(self.ttl, math.floor(now - self.since + 0.5) + 0.5)


class Cache:
    """RRsets and negative answers, keyed by name and type; expired entries are kept for *stale* more seconds."""

    def __init__(self, max_entries: int = MAX_ENTRIES, stale: float = 0.0) -> None:
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._max, self._stale = max_entries, stale

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Cache entries={len(self)} of {self._max}>"

    def get(self, name: Name, rdtype: int, now: float, rank: Rank = Rank.ANSWER) -> Entry | None:
        """Return the unexpired entry for *name* and *rdtype* if its trust rank is at least *rank*."""
        key = (name.key, rdtype)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= now:
            if entry.expires + self._stale <= now:
                del self._entries[key]
            return None
        if entry.rank < rank:
            return None
        self._entries.move_to_end(key)
        return entry

    def get_stale(self, name: Name, rdtype: int, now: float) -> Entry | None:
        """Return an answer that expired at most *stale* seconds ago, with a TTL of `STALE_TTL`; None otherwise."""
        entry = self._entries.get((name.key, rdtype))
        if entry is None or entry.expires + self._stale <= now or entry.rank < Rank.ANSWER:
            return None
        return replace(entry, since=now, ttl=STALE_TTL)

    def put(self, records: Sequence[Record], rank: Rank, now: float) -> Entry:
        """Store one RRset for its lowest TTL (RFC 2181 section 5.2) and return its entry.

        An unexpired entry with a higher trust rank is not replaced.
        """
        first = records[0]
        entry = Entry(rank, now, min(MAX_TTL, *(each.ttl for each in records)), tuple(records))
        self._store((first.name.key, first.rdtype), entry, now)
        return entry

    def put_negative(self, name: Name, rdtype: int, negative: Negative, ttl: int, now: float) -> Entry:
        """Store a negative answer for *ttl* seconds, at most `MAX_NEGATIVE_TTL`; return its entry."""
        entry = Entry(Rank.AUTHORITATIVE, now, min(ttl, MAX_NEGATIVE_TTL), (), negative)
        self._store((name.key, rdtype), entry, now)
        return entry

    def discard(self, name: Name, rdtype: int) -> None:
        """Remove one entry if it exists."""
        self._entries.pop((name.key, rdtype), None)

    def flush(self, name: Name | None = None) -> int:
        """Remove the entries for *name*, or all entries if *name* is None; return the number removed."""
        doomed = [key for key in self._entries if name is None or key[0] == name.key]
        for key in doomed:
            del self._entries[key]
        return len(doomed)

    def entries(self, now: float) -> Iterator[tuple[Key, Entry]]:
        """Yield the entries that have not expired at *now*."""
        return ((key, entry) for key, entry in list(self._entries.items()) if entry.expires > now)

    def _store(self, key: Key, entry: Entry, now: float) -> None:
        if entry.expires <= now:
            return
        old = self._entries.get(key)
        if old is not None and old.expires > now and old.rank > entry.rank:
            return
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > self._max:
            self._entries.popitem(last=False)
