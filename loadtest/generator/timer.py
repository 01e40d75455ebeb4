"""A timer that wakes an event loop with microsecond precision: Linux's timerfd (timerfd_create(2)).

Timers of epoll, asyncio and libuv have millisecond precision, and libuv's fire up to 0.9 ms early.  `os.timerfd_create`
needs Python 3.13, so this calls libc.
"""

import contextlib
import ctypes
import os
import time

_libc = ctypes.CDLL(None, use_errno=True)
#: TFD_TIMER_ABSTIME.
_ABSTIME = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Timer:
    """Becomes readable at the time set last, on the clock of `time.monotonic`."""

    def __init__(self) -> None:
        self._fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _TimerSpec()

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._fd

    def set(self, at: float) -> None:
        """Become readable at *at*, or at once if that is in the past."""
        # Zero would disarm the timer.
        nanoseconds = max(1, round(at * 1e9))
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(nanoseconds, 1_000_000_000)
        if _libc.timerfd_settime(self._fd, _ABSTIME, ctypes.byref(self._spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Read the expiry, so that the timer is no longer readable."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self._fd)
