"""Errors that explain why a name could not be resolved."""


class StubError(Exception):
    """Base class: *name* could not be resolved for *rdtype*."""

    def __init__(self, name: str, rdtype: str, message: str) -> None:
        super().__init__(message)
        self.name, self.rdtype = name, rdtype


class NoSuchName(StubError):  # noqa: N818 - named after the outcome (RFC 8020)
    """NXDOMAIN: the name does not exist."""


class NoAddress(StubError):  # noqa: N818 - named after the outcome (RFC 2308 section 2.2)
    """NODATA: the name exists but has no record of this type."""


class ServerFailure(StubError):  # noqa: N818 - named after the outcome
    """No server returned an answer, and at least one replied with an error (SERVFAIL, REFUSED, …)."""


class Timeout(StubError):  # noqa: N818 - named after the outcome
    """No server replied before the time-out."""


class ProtocolError(OSError):
    """The server does not speak the protocol of the transport, or refuses the request."""


class MalformedReplyError(Exception):
    """The received bytes are not a valid reply to the query; the caller keeps waiting."""
