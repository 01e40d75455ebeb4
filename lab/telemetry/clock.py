"""The clocks of a process: a wall clock whose offset a drill can move, and the monotonic clock that nobody moves."""

import time


class Clock:
    """Wall time plus an offset; only shells hold one, cores get the time as an argument."""

    def __init__(self) -> None:
        #: Seconds that this process believes the world to be ahead (negative: behind).
        self.offset = 0.0

    def time(self) -> float:
        """Return seconds since the epoch, as this process believes."""
        return time.time() + self.offset

    def monotonic(self) -> float:
        """Return seconds on a clock that neither steps nor is offset."""
        return time.monotonic()

    def __repr__(self) -> str:
        return f"<Clock offset={self.offset:+g}s>"
