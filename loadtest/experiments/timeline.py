"""What happened when: events of an experiment, on the clock that every container of this machine shares."""

import time

from experiments.result import Event


class Timeline:
    """Collects events; time 0 is when it was made."""

    def __init__(self) -> None:
        #: On CLOCK_MONOTONIC, as the recorders' time stamps are.
        self.began = time.monotonic()
        self.events: list[Event] = []

    def now(self) -> float:
        """Return seconds since the beginning."""
        return time.monotonic() - self.began

    def note(self, kind: str, text: str) -> Event:
        """Write down that something happened now.

        Args:
            kind: injection, undone, observation, alarm or phase.
            text: what, in a few words.
        """
        event = Event(self.now(), kind, text)
        self.events.append(event)
        return event
