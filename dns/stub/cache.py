"""Cache of a stub's answers, each kept for exactly its TTL.  The caller passes the time."""

from collections import OrderedDict
from dataclasses import replace

from stub.errors import StubError
from stub.message import Answer

#: Maximum number of cached answers; at the limit, the least recently used one is evicted.
MAX_ENTRIES = 10_000

Key = tuple[str, str]


class Cache:
    """Positive and negative answers, keyed by name and type."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._entries: OrderedDict[Key, tuple[float, Answer | StubError]] = OrderedDict()
        #: Record types of all entries that have ever been added.
        self._types: set[str] = set()
        self._max = max_entries
        self.hits = self.misses = 0

    def __repr__(self) -> str:
        return f"<Cache entries={len(self._entries)} hits={self.hits} misses={self.misses}>"

    def get(self, name: str, rdtype: str, now: float) -> Answer | StubError | None:
        """Return the cached answer with its remaining TTL, or the cached negative answer; None if there is none."""
        key = (name.rstrip(".").lower(), rdtype)
        entry = self._entries.get(key)
        if entry is None or entry[0] <= now:
            self._entries.pop(key, None)
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        expires, outcome = entry
        if isinstance(outcome, Answer):
            return replace(
                outcome, ttl_s=expires - now, cached=True, rtt_ms=0.0, bytes_sent=0, bytes_received=0, round_trips=0
            )
        return outcome

    def put(self, name: str, rdtype: str, outcome: Answer | StubError, ttl: float, now: float) -> None:
        """Store *outcome* for *ttl* seconds from *now*; nothing is stored if the TTL is 0."""
        if ttl <= 0:
            return
        self._entries[name.rstrip(".").lower(), rdtype] = (now + ttl, outcome)
        self._types.add(rdtype)
        while len(self._entries) > self._max:
            self._entries.popitem(last=False)

    def flush(self, name: str | None = None) -> int:
        """Remove the entries for *name*, or all entries if *name* is None; return the number removed."""
        before = len(self._entries)
        if name is None:
            self._entries.clear()
        else:
            for rdtype in self._types:
                self._entries.pop((name.rstrip(".").lower(), rdtype), None)
        return before - len(self._entries)
