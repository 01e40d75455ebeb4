"""How many requests may be sent again: a share of all requests, so that retries never multiply an overload.

Envoy calls this a retry budget, Finagle too.  No clock: the time is an argument, in seconds.
"""


class RetryBudget:
    """A bucket that every request fills by *ratio* and every second by *per_second*; a retry takes one."""

    def __init__(self, ratio: float = 0.2, per_second: float = 10.0, most: float = 100.0) -> None:
        self._ratio, self._per_second, self._most = ratio, per_second, most
        self._tokens, self._at = per_second, 0.0

    def __repr__(self) -> str:
        return f"<RetryBudget {self._tokens:.1f} of {self._most:g}>"

    def request(self) -> None:
        """Count a request that is sent for the first time."""
        self._tokens = min(self._most, self._tokens + self._ratio)

    def spend(self, now: float) -> bool:
        """Take one retry; return False when there is none left."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
