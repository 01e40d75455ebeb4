"""Structured logs on standard error: one JSON object per line, with a constant event name and fields.

Only a program's `__main__` calls `configure`; all other modules call only `get`.
"""

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar, TextIO

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
#: Maximum number of lines per event and second from a logger made by `bounded`.
MOST = 5


class EventLogger:
    """Logs named events with fields in the protocol's terms (`qname`, `serial`, `took_ms`)."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **fields: Any) -> None:
        """Log one step in the processing of a request."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log an event of interest to the lab's operator."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log a failure that the service handled."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log a failure that affected a client."""
        self._log(logging.ERROR, event, fields)

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields})


def get(name: str) -> EventLogger:
    """Return the logger with the given name, for example ``edge.pool``."""
    return EventLogger(logging.getLogger(name))


class BoundedLogger(EventLogger):
    """Writes at most `MOST` lines per event and second, so that a flood of bad requests cannot fill the disk.

    The next line for the event has the number of omitted lines in the field ``suppressed``.
    """

    __slots__ = ("_clock", "_events")

    def __init__(self, logger: logging.Logger, clock: Callable[[], float]) -> None:
        super().__init__(logger)
        self._clock = clock
        #: Start of the current second, number of lines written in that second, and number of lines omitted since the
        #: last written line; keyed by event.
        self._events: dict[str, tuple[float, int, int]] = {}

    def _log(self, level: int, event: str, fields: dict[str, Any]) -> None:
        now = self._clock()
        start, written, suppressed = self._events.get(event, (now, 0, 0))
        if now - start >= 1:
            start, written = now, 0
        if written >= MOST:
            self._events[event] = start, written, suppressed + 1
            return
        self._events[event] = start, written + 1, 0
        super()._log(level, event, {**fields, "suppressed": suppressed} if suppressed else fields)


def bounded(name: str, clock: Callable[[], float] = time.monotonic) -> BoundedLogger:
    """Return a logger for events that any client can cause; *clock* returns the time in seconds."""
    return BoundedLogger(logging.getLogger(name), clock)


class _JsonLines(logging.Formatter):
    #: Fields that every log line of this process contains, after the service's name.
    common: ClassVar[dict[str, Any]] = {}

    def __init__(self, service: str) -> None:
        super().__init__()
        self.service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self.service,
            **self.common,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(service: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Write all events of this process from *level* upwards to *stream* (default: standard error) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonLines(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def label(**fields: Any) -> None:
    """Add *fields* to every further log line of this process."""
    _JsonLines.common.update(fields)
