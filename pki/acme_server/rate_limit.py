"""Rate limit of new orders per account: a number of orders within a sliding window.  The caller passes the time."""

import math
from collections import deque


class RateLimit:
    """Counts the orders of each account; the counts are not stored, so that a restart clears them."""

    def __init__(self, orders: int, window: float) -> None:
        """Allow *orders* new orders per account within *window* seconds."""
        self.orders, self.window = orders, window
        self._times: dict[str, deque[float]] = {}

    def __repr__(self) -> str:
        return f"<RateLimit {self.orders} orders in {self.window:g} s, {len(self._times)} accounts>"

    def take(self, account: str, now: float) -> int | None:
        """Count an order of *account*.

        Returns:
            None if the order is allowed; otherwise whole seconds until the next order is, and the order is not counted.
        """
        times = self._times.setdefault(account, deque())
        while times and times[0] <= now - self.window:
            times.popleft()
        if len(times) >= self.orders:
            return max(1, math.ceil(times[0] + self.window - now))
        times.append(now)
        return None
