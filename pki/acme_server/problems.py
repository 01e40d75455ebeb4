"""ACME errors (RFC 8555 section 6.7), and their mapping to problem documents and HTTP status codes."""

from typing import Any

PREFIX = "urn:ietf:params:acme:error:"

#: HTTP status code of each problem type.
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
#: Problem types that RFC 8555 does not define, and the standard type sent to the client instead.
_ON_THE_WIRE = {
    "conflict": "malformed",
    "methodNotAllowed": "malformed",
    "notFound": "malformed",
    "tooLarge": "malformed",
    "unavailable": "serverInternal",
    "unsupportedMediaType": "malformed",
}


class Problem(Exception):  # noqa: N818 - RFC 8555 calls an error a problem
    """A request failed; the client receives a problem document."""

    def __init__(
        self,
        kind: str,
        detail: str,
        *,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        """Create a problem.

        Args:
            kind: problem type, a key of `STATUS`.
            detail: human-readable sentence that states what was expected and what was received.
            retry_after: value of the Retry-After header, in seconds.
            headers: additional HTTP headers (``Allow``, ``Location``).
            extra: additional members of the problem document (``algorithms``, ``subproblems``).
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
