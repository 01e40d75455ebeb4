"""Structured logs on standard error: one JSON object per line, with a constant event name and fields.

Only a program's `__main__` calls `configure`; all other modules call only `get`.
"""

import json
import logging
import sys
import time
from typing import Any, ClassVar, TextIO

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


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
