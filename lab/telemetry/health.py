"""Health of one service: named checks, each with a result and an explanation."""

from collections.abc import Callable
from typing import Any


class Health:
    """Health checks, keyed by name; the service is healthy if there is at least one check and all checks pass."""

    def __init__(self) -> None:
        self._checks: dict[str, tuple[bool, str]] = {}
        self._callbacks: list[Callable[[], None]] = []

    def before_report(self, callback: Callable[[], None]) -> None:
        """Call *callback* before each report, so that it can record checks that depend on the time."""
        self._callbacks.append(callback)

    def set(self, check: str, ok: bool, detail: str = "") -> None:
        """Record the result of *check*; *detail* is a human-readable explanation."""
        self._checks[check] = (ok, detail)

    def forget(self, check: str) -> None:
        """Remove a check that no longer applies."""
        self._checks.pop(check, None)

    @property
    def ok(self) -> bool:
        """Whether all checks pass; False if no check has been recorded yet."""
        return bool(self._checks) and all(ok for ok, _ in self._checks.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the response body of ``GET /health``, without the service name and the faults."""
        for callback in self._callbacks:
            callback()
        return {
            "status": "ok" if self.ok else "failing",
            "checks": {name: {"ok": ok, "detail": detail} for name, (ok, detail) in self._checks.items()},
        }

    def __repr__(self) -> str:
        failing = [name for name, (ok, _) in self._checks.items() if not ok]
        return f"<Health ok={self.ok} checks={len(self._checks)} failing={failing}>"
