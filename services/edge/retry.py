"""Retry budget: limits retries to a share of all requests, so that retries cannot amplify an overload.

Envoy and Finagle use the same name and idea. Time is an argument, in seconds.
"""


class RetryBudget:
    """Token bucket: each request adds *ratio* tokens, each second adds *per_second*, and each retry takes one."""

    def __init__(self, ratio: float = 0.2, per_second: float = 10.0, most: float = 100.0) -> None:
        self._ratio, self._per_second, self._most = ratio, per_second, most
        self._tokens, self._at = per_second, 0.0

    def __repr__(self) -> str:
        return f"<RetryBudget {self._tokens:.1f} of {self._most:g}>"

    def request(self) -> None:
        """Count a first attempt, which adds *ratio* tokens."""
        self._tokens = min(self._most, self._tokens + self._ratio)

    def spend(self, now: float) -> bool:
        """Take one token for a retry; return False if the budget is exhausted."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
