"""Bounded cache for a pure function of bytes, used for message heads, which clients and origins repeat often.

A key that is requested a second time moves from the probationary generation to the frequent one. A flood of distinct
heads therefore evicts only probationary entries. Frequent entries are evicted one generation at a time, and only when
other keys have been requested twice.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

#: Maximum total key size of each of the three generations, and maximum size of a single cached key, both in bytes.
GENERATION, LONGEST = 1 << 20, 4096

T = TypeVar("T")


class Remembered(Generic[T]):
    """Cache of the results of *function*, which must depend only on its argument."""

    __slots__ = ("_bytes", "_frequent", "_function", "_generation", "_new", "_new_bytes", "_previous")

    def __init__(self, function: Callable[[bytes], T], generation: int = GENERATION) -> None:
        self._function, self._generation = function, generation
        self._frequent: dict[bytes, T] = {}
        self._previous: dict[bytes, T] = {}
        self._new: dict[bytes, T] = {}
        self._bytes = self._new_bytes = 0

    def __repr__(self) -> str:
        return f"<Remembered new={len(self._new)} frequent={len(self._frequent)} previous={len(self._previous)}>"

    def __call__(self, key: bytes) -> T:
        """Return ``function(key)``, from the cache if possible; exceptions are not cached."""
        found = self._frequent.get(key)
        return found if found is not None else self._look_further(key)

    def _look_further(self, key: bytes) -> T:
        found = self._previous.get(key)
        if found is None:
            found = self._new.pop(key, None)
            if found is not None:
                self._new_bytes -= len(key)
        if found is not None:
            self._promote(key, found)
            return found
        made = self._function(key)
        if len(key) <= LONGEST:
            if self._new_bytes + len(key) > self._generation:
                self._new, self._new_bytes = {}, 0
            self._new[key] = made
            self._new_bytes += len(key)
        return made

    def _promote(self, key: bytes, value: T) -> None:
        if self._bytes + len(key) > self._generation:
            self._previous, self._frequent, self._bytes = self._frequent, {}, 0
        self._frequent[key] = value
        self._bytes += len(key)
