"""Reasons why a name has no answer, named as users of a resolver know them."""


class StubError(Exception):
    """Base: *name* could not be resolved for *rdtype*."""

    def __init__(self, name: str, rdtype: str, message: str) -> None:
        super().__init__(message)
        self.name, self.rdtype = name, rdtype


class NoSuchName(StubError):  # noqa: N818 - an outcome, RFC 8020
    """NXDOMAIN: the name does not exist."""


class NoAddress(StubError):  # noqa: N818 - an outcome, RFC 2308 section 2.2
    """NODATA: the name exists and has no record of this type."""


class ServerFailure(StubError):  # noqa: N818 - an outcome
    """No server gave an answer, and at least one replied with an error (SERVFAIL, REFUSED, …)."""


class Timeout(StubError):  # noqa: N818 - an outcome
    """No server answered in time."""


class MalformedReplyError(Exception):
    """Bytes that are not a reply to our query; the caller keeps waiting for one."""
