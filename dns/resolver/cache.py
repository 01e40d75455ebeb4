"""What the resolver knows, until when, and how far it trusts it (RFC 2181 section 5.4.1, RFC 2308).

Time is an argument.  Bounded: the least recently used entry goes first.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from resolver.message import Record

#: Entries (RRsets and refusals) kept.
MAX_ENTRIES = 100_000
#: Longest life of an entry in seconds, whatever its TTL says (a week, RFC 8767 section 4 discusses such caps).
MAX_TTL = 604_800
#: Longest life of a refusal (RFC 2308 section 5 recommends one to three hours).
MAX_NEGATIVE_TTL = 10_800

Key = tuple[str, str]


class Rank(IntEnum):
    """How far data is trusted; lower never replaces higher while it lives (RFC 2181 section 5.4.1)."""

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
    """One RRset or refusal, with the seconds for which it holds."""

    rank: Rank
    #: When it was learned, in seconds on the clock of whoever calls.
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
        """Return the seconds that remain at *now*, to the nearest: caches behind us keep it as long as we do on average."""
        return max(0, self.ttl - math.floor(now - self.since + 0.5))

    def until(self, now: float) -> float:
        """Return when `left` will say less than at *now*, or the entry ends."""
        return self.since + min(self.ttl, math.floor(now - self.since + 0.5) + 0.5)

    def at(self, now: float) -> tuple[Record, ...]:
        """Return the records with the TTL that remains at *now*."""
        left = self.left(now)
        return tuple(replace(each, ttl=left) for each in self.records)


class Cache:
    """RRsets and refusals by name and type."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._max = max_entries

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Cache entries={len(self)} of {self._max}>"

    def get(self, name: str, rtype: str, now: float, rank: Rank = Rank.ANSWER) -> Entry | None:
        """Return the living entry for *name* and *rtype* that is trusted at least as *rank*."""
        entry = self._entries.get((name, rtype))
        if entry is None:
            return None
        if entry.expires <= now:
            del self._entries[name, rtype]
            return None
        if entry.rank < rank:
            return None
        self._entries.move_to_end((name, rtype))
        return entry

    def put(self, records: Sequence[Record], rank: Rank, now: float) -> Entry:
        """Keep one RRset for the shortest of its TTLs (RFC 2181 section 5.2), unless more trusted data lives; return it."""
        first = records[0]
        entry = Entry(rank, now, min(MAX_TTL, *(each.ttl for each in records)), tuple(records))
        self._store((first.name, first.rtype), entry, now)
        return entry

    def put_negative(self, name: str, rtype: str, negative: Negative, ttl: int, now: float) -> Entry:
        """Keep a refusal for *ttl* seconds; return it."""
        entry = Entry(Rank.AUTHORITATIVE, now, min(ttl, MAX_NEGATIVE_TTL), (), negative)
        self._store((name, rtype), entry, now)
        return entry

    def flush(self, name: str | None = None) -> int:
        """Forget *name* (all types), or everything; return how many entries went."""
        doomed = [key for key in self._entries if name is None or key[0] == name]
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
