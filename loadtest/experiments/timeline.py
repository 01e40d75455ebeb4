"""The clock and the events of a run, on CLOCK_MONOTONIC, which all containers of this machine share."""

import asyncio
import time

from experiments.result import Event


class Timeline:
    """Counts seconds from its creation and collects events."""

    def __init__(self) -> None:
        #: On CLOCK_MONOTONIC, like the recorders' time stamps.
        self.began = time.monotonic()
        self.events: list[Event] = []

    def now(self) -> float:
        """Return seconds since the run began."""
        return time.monotonic() - self.began

    async def until(self, moment: float) -> None:
        """Sleep until *moment*, in seconds since the run began; return at once if it has passed."""
        await asyncio.sleep(max(0.0, moment - self.now()))

    def note(self, kind: str, text: str) -> Event:
        """Record an event that happens now.

        Args:
            kind: injection, undone, observation, alarm or phase.
            text: what happened, in a few words.
        """
        event = Event(self.now(), kind, text)
        self.events.append(event)
        return event
