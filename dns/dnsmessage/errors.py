"""Errors of the codec, by whose fault they are."""


class DnsMessageError(Exception):
    """Base of this package's errors."""


class RemoteError(DnsMessageError):
    """The peer sent bytes that cannot be used; *rcode* is what to answer (RFC 1035 section 4.1.1)."""

    def __init__(self, message: str, rcode: int = 1) -> None:
        super().__init__(message)
        self.rcode = rcode


class MismatchError(RemoteError):
    """A datagram that does not answer our query: another ID or question (RFC 5452 section 9.1)."""


class LocalError(DnsMessageError):
    """The caller's text or values cannot be encoded."""


class NameSyntaxError(LocalError):
    """Text that is not a domain name."""


class RdataSyntaxError(LocalError):
    """Words that are not RDATA of the given type."""
