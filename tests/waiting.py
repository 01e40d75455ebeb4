"""Polling for conditions that come without an event."""

import asyncio
import time
from collections.abc import Callable


async def until(fact: Callable[[], object], seconds: float = 5.0) -> None:
    """Poll until *fact* is true; raise `TimeoutError` after *seconds*."""
    async with asyncio.timeout(seconds):
        while not fact():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)


def comes_true(fact: Callable[[], object], seconds: float = 5.0) -> bool:
    """Poll, without an event loop, until *fact* is true; return whether it was within *seconds*."""
    deadline = time.monotonic() + seconds
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(fact())
