"""Fair queue: an account with many validations does not delay the validations of other accounts."""

from collections import Counter, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A fair queue: FIFO per account, round robin between accounts; call `done` when the work on an item has ended."""

    def __init__(self, at_once: int, at_once_per_account: int, waiting_per_account: int) -> None:
        """Create an empty queue.

        Args:
            at_once: maximum number of items in progress, in total.
            at_once_per_account: maximum number of items in progress per account.
            waiting_per_account: maximum number of waiting items per account.
        """
        self._at_once, self._per_account, self._max_waiting = at_once, at_once_per_account, waiting_per_account
        self._waiting: dict[str, deque[T]] = {}
        self._running: Counter[str] = Counter()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __repr__(self) -> str:
        return f"<FairQueue waiting={len(self)} of {len(self._waiting)} accounts, running={self._running.total()}>"

    def full(self, account: str) -> bool:
        """Return whether *account* has the maximum number of waiting items."""
        return len(self._waiting.get(account, ())) >= self._max_waiting

    def put(self, account: str, item: T) -> None:
        """Append an item of *account*."""
        self._waiting.setdefault(account, deque()).append(item)

    def take(self) -> tuple[str, T] | None:
        """Return the next item and its account, or None if no item may start now."""
        if self._running.total() >= self._at_once:
            return None
        account = next((each for each in self._waiting if self._running[each] < self._per_account), None)
        if account is None:
            return None
        items = self._waiting.pop(account)
        item = items.popleft()
        if items:
            self._waiting[account] = items  # re-insert the account behind all other accounts
        self._running[account] += 1
        return account, item

    def done(self, account: str) -> None:
        """Record that an item of *account* is no longer in progress; call this once per item returned by `take`."""
        self._running[account] -= 1
        if not self._running[account]:
            del self._running[account]
