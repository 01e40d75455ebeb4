"""What can be wrong with a zone."""


class NameServerError(Exception):
    """Base of this package's errors."""


class ZoneFileError(NameServerError):
    """A master file does not say what it should: ``FILE:LINE: expected …, got …``."""

    def __init__(self, source: str, line: int, message: str) -> None:
        super().__init__(f"{source}:{line}: {message}")
        self.source, self.line, self.message = source, line, message


class ZoneError(NameServerError):
    """A set of records that cannot be a zone (RFC 1035 section 5.2)."""
