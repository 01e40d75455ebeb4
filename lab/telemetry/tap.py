"""Admin API for a tap, which records the plaintext that passes through a service, on request and for a few seconds.

A service calls `record` with decrypted bytes.  A tap is off by default, limited in time and size, and listed in /health
while it is on.  It reveals nothing that an operator with control of the service could not obtain in another way.
"""

from collections.abc import Sequence
from typing import Any

from telemetry.admin import AdminError, Request
from telemetry.service import Telemetry

#: Maximum duration of a recording in seconds, and its maximum size in bytes.
MAX_SECONDS, MAX_BYTES = 120.0, 256 * 1024
_NAME = "tap"


class Tap:
    """The tap of one service: ``POST /admin/tap {"seconds": N}``, ``GET`` and ``DELETE /admin/tap``."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._until = 0.0
        self._records: list[tuple[str, bytes]] = []
        self._size = self._dropped = 0
        telemetry.route("POST", "/admin/tap", self._start)
        telemetry.route("GET", "/admin/tap", lambda _: self._report())
        telemetry.route("DELETE", "/admin/tap", self._stop)

    @property
    def on(self) -> bool:
        """Whether bytes are being recorded."""
        if self._until and self._telemetry.clock.monotonic() >= self._until:
            self._end()
        return self._until > 0

    def record(self, where: str, data: bytes) -> None:
        """Record *data* if the tap is on; *where* labels it, for example with the receiving origin."""
        if not self.on or not data:
            return
        if self._size + len(data) > MAX_BYTES:
            self._dropped += 1
            return
        self._size += len(data)
        self._records.append((where, bytes(data)))

    def _start(self, request: Request) -> dict[str, Any]:
        body = request.json()
        seconds = body.get("seconds") if isinstance(body, dict) else None
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= MAX_SECONDS:
            raise AdminError(400, f'expected {{"seconds": N}} with N up to {MAX_SECONDS:g}, got {request.body[:80]!r}')
        self._records, self._size, self._dropped = [], 0, 0
        self._until = self._telemetry.clock.monotonic() + seconds
        self._telemetry.altered[_NAME] = "records plaintext"
        return self._report()

    def _stop(self, _: Request) -> dict[str, Any]:
        self._end()
        return self._report()

    def _end(self) -> None:
        self._until = 0.0
        self._telemetry.altered.pop(_NAME, None)

    def _report(self) -> dict[str, Any]:
        records = [{"where": where, "hex": data.hex()} for where, data in self._records]
        return {"on": self.on, "records": records, "dropped": self._dropped}


def merged(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge the reports of the worker processes of one service."""
    return {
        "on": any(each["on"] for each in reports),
        "records": [record for each in reports for record in each["records"]],
        "dropped": sum(each["dropped"] for each in reports),
    }
