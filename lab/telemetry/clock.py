"""Clocks of a process: wall-clock time, which a drill can offset, and monotonic time, which is never offset."""

import time
from collections.abc import Callable


class Clock:
    """Wall clock with an adjustable offset.

    Only shells (I/O code) own a clock; sans-IO cores take the time as an argument.
    """

    def __init__(self) -> None:
        self._offset = 0.0
        self._callbacks: list[Callable[[], None]] = []

    @property
    def offset(self) -> float:
        """Offset in seconds that is added to the wall-clock time; negative values set the clock back."""
        return self._offset

    @offset.setter
    def offset(self, seconds: float) -> None:
        self._offset = seconds
        for callback in self._callbacks:
            callback()

    def on_step(self, callback: Callable[[], None]) -> None:
        """Call *callback* each time the offset is set."""
        self._callbacks.append(callback)

    def time(self) -> float:
        """Return the wall-clock time in seconds since the epoch, including the offset."""
        return time.time() + self.offset

    def monotonic(self) -> float:
        """Return the monotonic time in seconds, which ignores the offset."""
        return time.monotonic()

    def __repr__(self) -> str:
        return f"<Clock offset={self.offset:+g}s>"
