"""Polling for conditions that have no event."""

import asyncio
import time
from collections.abc import Callable


async def until(fact: Callable[[], object], seconds: float = 5.0) -> None:
    """Poll until *fact* returns a true value; raise `TimeoutError` after *seconds*."""
    async with asyncio.timeout(seconds):
        while not fact():  # noqa: ASYNC110 - polls: the condition has no event
            await asyncio.sleep(0.01)  # polling interval


def comes_true(fact: Callable[[], object], seconds: float = 5.0) -> bool:
    """Poll without an event loop; return whether *fact* returned a true value within *seconds*."""
    deadline = time.monotonic() + seconds
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.02)  # polling interval
    return bool(fact())
