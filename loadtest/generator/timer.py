"""A timer that wakes an event loop with microsecond precision, based on Linux's timerfd (timerfd_create(2)).

The timers of epoll, asyncio and libuv have millisecond precision, and libuv's fire up to 0.9 ms early.
`os.timerfd_create` requires Python 3.13, so this module calls libc through ctypes.
"""

import contextlib
import ctypes
import os
import time

_libc = ctypes.CDLL(None, use_errno=True)
#: The flag TFD_TIMER_ABSTIME: the expiry is an absolute time.
_ABSTIME = 1


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class Timer:
    """A timer whose file descriptor becomes readable on expiry; times are on the clock of `time.monotonic`."""

    def __init__(self) -> None:
        self._fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _TimerSpec()

    def fileno(self) -> int:
        """Return the timer's file descriptor, for an event loop to wait on."""
        return self._fd

    def set(self, at: float) -> None:
        """Set the timer to expire at *at*, in seconds on `time.monotonic`; a time in the past expires immediately."""
        # At least 1 ns, because 0 disarms a timerfd.
        nanoseconds = max(1, round(at * 1e9))
        self._spec.value.seconds, self._spec.value.nanoseconds = divmod(nanoseconds, 1_000_000_000)
        if _libc.timerfd_settime(self._fd, _ABSTIME, ctypes.byref(self._spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def clear(self) -> None:
        """Read the expiration count, so that the descriptor is no longer readable."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 8)

    def close(self) -> None:
        """Close the file descriptor."""
        os.close(self._fd)
