"""The clocks of a process: wall time, which a drill can offset, and monotonic time, which it cannot."""

import time


class Clock:
    """Wall time plus an offset.  Only shells have one; cores take the time as an argument."""

    def __init__(self) -> None:
        #: Seconds added to wall time; negative values set the clock back.
        self.offset = 0.0

    def time(self) -> float:
        """Return seconds since the epoch, with the offset."""
        return time.time() + self.offset

    def monotonic(self) -> float:
        """Return monotonic seconds, without the offset."""
        return time.monotonic()

    def __repr__(self) -> str:
        return f"<Clock offset={self.offset:+g}s>"
