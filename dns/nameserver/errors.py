"""What can be wrong with a zone or a query.  A `QueryError` carries the rcode that goes on the wire."""


class NameServerError(Exception):
    """Base of this package's errors."""


class ZoneFileError(NameServerError):
    """A master file does not say what it should: ``FILE:LINE: expected …, got …``."""

    def __init__(self, source: str, line: int, message: str) -> None:
        super().__init__(f"{source}:{line}: {message}")
        self.source, self.line, self.message = source, line, message


class ZoneError(NameServerError):
    """A set of records that can not be a zone (RFC 1035 section 5.2)."""


class QueryError(NameServerError):
    """A query that gets an error for an answer."""

    def __init__(self, rcode: int, message: str) -> None:
        super().__init__(message)
        self.rcode = rcode
