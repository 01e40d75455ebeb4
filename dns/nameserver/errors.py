"""Errors in zones and master files."""


class NameServerError(Exception):
    """Base class of this package's errors."""


class ZoneFileError(NameServerError):
    """A master file is unreadable or malformed; the message reads ``FILE:LINE: expected …, got …``.

    If the error concerns the whole zone, *line* is 0 and the message has no line number.
    """

    def __init__(self, source: str, line: int, message: str) -> None:
        super().__init__(f"{source}:{line}: {message}" if line else f"{source}: {message}")
        self.source, self.line, self.message = source, line, message


class ZoneError(NameServerError):
    """The records do not form a valid zone (RFC 1035 section 5.2)."""
