"""Facts that nobody announces: they are polled for, until they come true or it takes too long."""

import asyncio
import time
from collections.abc import Callable


async def until(fact: Callable[[], object], seconds: float = 5.0) -> None:
    """Return once *fact* is true of something that tells nobody about its inside; `TimeoutError` if it never is."""
    async with asyncio.timeout(seconds):
        while not fact():  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)  # polls


def comes_true(fact: Callable[[], object], seconds: float = 5.0) -> bool:
    """Return whether *fact* is true within *seconds*, where no event loop runs."""
    deadline = time.monotonic() + seconds
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.02)  # polls
    return bool(fact())
