"""Rate limit on new orders per account within a sliding window; the caller supplies the current time."""

import math
from collections import deque


class RateLimit:
    """Counts each account's new orders in memory; a restart resets the counts."""

    def __init__(self, orders: int, window: float) -> None:
        """Allow *orders* new orders per account within *window* seconds."""
        self.orders, self.window = orders, window
        self._times: dict[str, deque[float]] = {}

    def __repr__(self) -> str:
        return f"<RateLimit {self.orders} orders in {self.window:g} s, {len(self._times)} accounts>"

    def take(self, account: str, now: float) -> int | None:
        """Count an order of *account*.

        Returns:
            None if the order is allowed.  Otherwise the order is not counted, and the result is the time until the next
                order is allowed, in whole seconds.
        """
        times = self._times.setdefault(account, deque())
        while times and times[0] <= now - self.window:
            times.popleft()
        if len(times) >= self.orders:
            return max(1, math.ceil(times[0] + self.window - now))
        times.append(now)
        return None
