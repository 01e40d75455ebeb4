"""Transport wrapper that records data written to an origin in the edge's tap (`telemetry.tap`).

Only connections that are opened while the tap is on have the wrapper, so all others have no overhead.
"""

import asyncio
from typing import Any

from telemetry.tap import Tap


class TappedTransport:
    """Wrapper that forwards all calls to a transport, and records data before it is written."""

    def __init__(self, transport: asyncio.Transport, tap: Tap, where: str) -> None:
        self._transport, self._tap, self._where = transport, tap, where

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Record and write *data*."""
        self._tap.record(self._where, data)
        self._transport.write(data)
