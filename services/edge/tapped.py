"""A transport to an origin that shows the edge's tap what is written to it (`telemetry.tap`).

Only connections that open while the tap is on have one, so that all others cost nothing.
"""

import asyncio
from typing import Any

from telemetry.tap import Tap


class TappedTransport:
    """Passes everything on to a transport; the bytes that the edge writes are recorded first."""

    def __init__(self, transport: asyncio.Transport, tap: Tap, where: str) -> None:
        self._transport, self._tap, self._where = transport, tap, where

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Record and write *data*."""
        self._tap.record(self._where, data)
        self._transport.write(data)
