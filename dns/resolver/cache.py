"""What the resolver has learned, until when it holds, and how far it is trusted (RFC 2181 section 5.4.1, RFC 2308).

Time is an argument.  The size is bounded: the least recently used entry is evicted.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from dnsmessage import Name, Record

#: Entries (RRsets and negative answers) kept.
MAX_ENTRIES = 100_000
#: Longest life of an entry in seconds, whatever its TTL says (a week; RFC 8767 section 4 discusses such caps).
MAX_TTL = 604_800
#: Longest life of a negative answer in seconds (RFC 2308 section 5 recommends one to three hours).
MAX_NEGATIVE_TTL = 10_800
#: TTL of an answer that has expired and is given because its servers fail (RFC 8767 section 4 recommends 30 s).
STALE_TTL = 30
#: Stands in place of a type for "the name does not exist", which denies every type (RFC 8020).
NO_NAME = 0

Key = tuple[bytes, int]


class Rank(IntEnum):
    """How far data is trusted; lower never replaces higher while that lives (RFC 2181 section 5.4.1)."""

    GLUE = 1
    REFERRAL = 2
    ANSWER = 3
    AUTHORITATIVE = 4


@dataclass(frozen=True, slots=True)
class Negative:
    """The name, or the type at the name, does not exist."""

    rcode: int
    #: The SOA of the zone that says so, for the client's own cache; None when there was none.
    soa: Record | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One RRset or negative answer, with the seconds for which it holds."""

    rank: Rank
    #: When it was learned, in seconds on the caller's clock.
    since: float
    #: Seconds that it lives from then.
    ttl: int
    records: tuple[Record, ...]
    negative: Negative | None = None

    @property
    def expires(self) -> float:
        """When it ends."""
        return self.since + self.ttl

    def left(self, now: float) -> int:
        """Return the seconds that remain, to the nearest: caches behind us keep it as long as we do, on average."""
        return max(0, self.ttl - math.floor(now - self.since + 0.5))

    def until(self, now: float) -> float:
        """Return when `left` will be less than at *now*, or the entry ends."""
        return self.since + min(self.ttl, math.floor(now - self.since + 0.5) + 0.5)


class Cache:
    """RRsets and negative answers by name and type; expired ones are kept for *stale* more seconds."""

    def __init__(self, max_entries: int = MAX_ENTRIES, stale: float = 0.0) -> None:
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._max, self._stale = max_entries, stale

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Cache entries={len(self)} of {self._max}>"

    def get(self, name: Name, rdtype: int, now: float, rank: Rank = Rank.ANSWER) -> Entry | None:
        """Return the live entry for *name* and *rdtype* that is trusted at least as far as *rank*."""
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
        """Return an answer that expired at most *stale* seconds ago, if at all, with a TTL of `STALE_TTL`."""
        entry = self._entries.get((name.key, rdtype))
        if entry is None or entry.expires + self._stale <= now or entry.rank < Rank.ANSWER:
            return None
        return replace(entry, since=now, ttl=STALE_TTL)

    def put(self, records: Sequence[Record], rank: Rank, now: float) -> Entry:
        """Store one RRset for its shortest TTL (RFC 2181 section 5.2), unless more trusted data lives; return it."""
        first = records[0]
        entry = Entry(rank, now, min(MAX_TTL, *(each.ttl for each in records)), tuple(records))
        self._store((first.name.key, first.rdtype), entry, now)
        return entry

    def put_negative(self, name: Name, rdtype: int, negative: Negative, ttl: int, now: float) -> Entry:
        """Store a negative answer for *ttl* seconds; return it."""
        entry = Entry(Rank.AUTHORITATIVE, now, min(ttl, MAX_NEGATIVE_TTL), (), negative)
        self._store((name.key, rdtype), entry, now)
        return entry

    def discard(self, name: Name, rdtype: int) -> None:
        """Forget one entry."""
        self._entries.pop((name.key, rdtype), None)

    def flush(self, name: Name | None = None) -> int:
        """Forget *name* (all types), or everything; return how many entries were removed."""
        doomed = [key for key in self._entries if name is None or key[0] == name.key]
        for key in doomed:
            del self._entries[key]
        return len(doomed)

    def entries(self, now: float) -> Iterator[tuple[Key, Entry]]:
        """Yield what lives at *now*."""
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
