"""Awaitables that apply a function to the result of another awaitable."""

import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class Later(Awaitable[T], Generic[S, T]):
    """Returns ``then(result)``, where *result* is the result of *first*.

    Nested coroutines have to be awaited one by one; otherwise, Python warns about each inner one. A `Later` closes
    *first* when it is closed or discarded, so that a server can drop a reply without awaiting it.
    """

    __slots__ = ("_first", "_then")

    def __init__(self, first: Awaitable[S], then: Callable[[S], T]) -> None:
        self._first, self._then = first, then

    def __await__(self) -> Generator[Any, Any, T]:
        return self._then((yield from self._first.__await__()))

    def close(self) -> None:
        """Discard *first* if it has not been awaited."""
        if isinstance(self._first, Later) or inspect.iscoroutine(self._first):
            self._first.close()

    __del__ = close
