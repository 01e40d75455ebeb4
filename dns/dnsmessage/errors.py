"""Codec errors, grouped by the side at fault: the peer or the caller."""


class DnsMessageError(Exception):
    """Base class of this package's errors."""


class RemoteError(DnsMessageError):
    """The peer sent an invalid message; *rcode* is the code to reply with (RFC 1035 section 4.1.1)."""

    def __init__(self, message: str, rcode: int = 1) -> None:
        super().__init__(message)
        self.rcode = rcode


class MismatchError(RemoteError):
    """A message is not the reply to our query: its ID or question differs (RFC 5452 section 9.1)."""


class LocalError(DnsMessageError):
    """The caller passed text or values that cannot be encoded."""


class NameSyntaxError(LocalError):
    """The text is not a valid domain name."""


class RdataSyntaxError(LocalError):
    """The words are not valid RDATA for the record type."""
