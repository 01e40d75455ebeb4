"""ACME problems (RFC 8555 section 6.7): one constructor each, one place where they become HTTP."""

from typing import Any

PREFIX = "urn:ietf:params:acme:error:"

#: Problem type and HTTP status.  The only table that maps our errors to the wire.
STATUS = {
    "accountDoesNotExist": 400,
    "alreadyReplaced": 409,
    "alreadyRevoked": 400,
    "badCSR": 400,
    "badNonce": 400,
    "badPublicKey": 400,
    "badRevocationReason": 400,
    "badSignatureAlgorithm": 400,
    "caa": 403,
    "connection": 400,
    "dns": 400,
    "conflict": 409,
    "incorrectResponse": 403,
    "invalidContact": 400,
    "malformed": 400,
    "methodNotAllowed": 405,
    "notFound": 404,
    "orderNotReady": 403,
    "rateLimited": 429,
    "rejectedIdentifier": 400,
    "serverInternal": 500,
    "tooLarge": 413,
    "unauthorized": 403,
    "unavailable": 503,
    "unsupportedContact": 400,
    "unsupportedMediaType": 415,
    "unsupportedIdentifier": 400,
}
#: Our own words for what RFC 8555 leaves to HTTP; on the wire they are the type on the right.
_ON_THE_WIRE = {
    "conflict": "malformed",
    "methodNotAllowed": "malformed",
    "notFound": "malformed",
    "tooLarge": "malformed",
    "unavailable": "serverInternal",
    "unsupportedMediaType": "malformed",
}


class Problem(Exception):  # noqa: N818 - RFC 8555's word
    """A request that gets a problem document for an answer."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        """Make one.

        Args:
            kind: a key of `STATUS`.
            detail: one sentence for people: what was expected, what came.
            retry_after: seconds, sent as Retry-After.
            headers: that go with it (``Allow``, ``Location``).
            extra: more members of the document (``algorithms``, ``subproblems``).
        """
        super().__init__(detail)
        self.kind, self.detail, self.extra = kind, detail, extra
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)
        self.status = STATUS[kind]

    def document(self) -> dict[str, Any]:
        """Return the problem document (RFC 9457)."""
        kind = _ON_THE_WIRE.get(self.kind, self.kind)
        return {"type": PREFIX + kind, "detail": self.detail, "status": self.status, **self.extra}
