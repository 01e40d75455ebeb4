"""Polling for conditions that have no event."""

import asyncio
import time
from collections.abc import Callable


async def until(fact: Callable[[], object], seconds: float = 5.0) -> None:
    """Poll until *fact* returns a true value; raise `TimeoutError` after *seconds*."""
    async with asyncio.timeout(seconds):
        while not fact():  # noqa: ASYNC110 - no event is available
            await asyncio.sleep(0.01)  # between two looks


def comes_true(fact: Callable[[], object], seconds: float = 5.0) -> bool:
    """Poll without an event loop; return whether *fact* returned a true value within *seconds*."""
    deadline = time.monotonic() + seconds
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.02)  # between two looks
    return bool(fact())
