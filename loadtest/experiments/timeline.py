"""The clock and the events of a run; times are on CLOCK_MONOTONIC, which all containers of one machine share."""

import asyncio
import time

from experiments.result import Event


class Timeline:
    """Measures the time since the run began, and records events with their times."""

    def __init__(self) -> None:
        #: Start of the run on CLOCK_MONOTONIC, the clock of the recorders' time stamps, in seconds.
        self.began = time.monotonic()
        self.events: list[Event] = []

    def now(self) -> float:
        """Return seconds since the run began."""
        return time.monotonic() - self.began

    async def until(self, moment: float) -> None:
        """Sleep until *moment*, in seconds since the run began; return immediately if *moment* has passed."""
        await asyncio.sleep(max(0.0, moment - self.now()))  # wait until *moment*

    def note(self, kind: str, text: str) -> Event:
        """Record an event with the current time.

        Args:
            kind: type of the event: injection, undone, observation, alarm or phase.
            text: description of the event in a few words.
        """
        event = Event(self.now(), kind, text)
        self.events.append(event)
        return event
