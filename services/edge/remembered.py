"""Remembers what a pure function made of some bytes: clients and origins send the same heads again and again.

An entry that is asked for twice moves from the newcomers to the frequent ones.  A flood of heads that differ only ever
empties the newcomers; the frequent ones are replaced a generation at a time, and only by what was asked for twice.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

#: Bytes of keys in each of the three generations, and the longest key that is remembered.
GENERATION, LONGEST = 1 << 20, 4096

T = TypeVar("T")


class Remembered(Generic[T]):
    """A bounded memory in front of *function*, which must depend on nothing but its argument."""

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
        """Return what the function returns for *key*; what it raises is not remembered."""
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
