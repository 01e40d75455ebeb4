"""ACME errors (RFC 8555 section 6.7): one constructor per problem type, with its HTTP status code.

Types that RFC 8555 does not define have their own name in logs and metrics; clients receive a standard type.
"""

from dataclasses import dataclass
from typing import Any

PREFIX = "urn:ietf:params:acme:error:"


class Problem(Exception):  # noqa: N818 - RFC 8555 calls an error a problem
    """A request failed; the client receives a problem document (RFC 9457)."""

    def __init__(self, type_: "ProblemType", detail: str, headers: dict[str, str], extra: dict[str, Any]) -> None:
        super().__init__(detail)
        self.type, self.detail, self.headers, self.extra = type_, detail, headers, extra

    @property
    def kind(self) -> str:
        """Name of the problem's type, without the URN prefix."""
        return self.type.name

    @property
    def status(self) -> int:
        """HTTP status code of the response."""
        return self.type.status

    def document(self) -> dict[str, Any]:
        """Return the problem document."""
        kind = PREFIX + (self.type.standard or self.type.name)
        return {"type": kind, "detail": self.detail, "status": self.status, **self.extra}


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A type of problem; calling it returns a `Problem` to raise."""

    name: str
    #: HTTP status code of responses.
    status: int = 400
    #: Standard type that clients receive instead of *name*; empty if RFC 8555 defines *name*.
    standard: str = ""

    def __call__(
        self, detail: str, *, retry_after: int | None = None, headers: dict[str, str] | None = None, **extra: Any
    ) -> Problem:
        """Return a problem of this type.

        Args:
            detail: human-readable sentence that states what was expected and what was received.
            retry_after: value of the Retry-After header, in seconds.
            headers: additional HTTP headers (``Allow``, ``Location``).
            extra: additional members of the problem document (``algorithms``, ``subproblems``).
        """
        after = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return Problem(self, detail, {**(headers or {}), **after}, extra)


account_does_not_exist = ProblemType("accountDoesNotExist")
already_replaced = ProblemType("alreadyReplaced", 409)
already_revoked = ProblemType("alreadyRevoked")
bad_csr = ProblemType("badCSR")
bad_nonce = ProblemType("badNonce")
bad_public_key = ProblemType("badPublicKey")
bad_revocation_reason = ProblemType("badRevocationReason")
bad_signature_algorithm = ProblemType("badSignatureAlgorithm")
caa = ProblemType("caa", 403)
connection = ProblemType("connection")
dns = ProblemType("dns")
external_account_required = ProblemType("externalAccountRequired", 403)
incorrect_response = ProblemType("incorrectResponse", 403)
invalid_contact = ProblemType("invalidContact")
invalid_profile = ProblemType("invalidProfile")
malformed = ProblemType("malformed")
order_not_ready = ProblemType("orderNotReady", 403)
rate_limited = ProblemType("rateLimited", 429)
rejected_identifier = ProblemType("rejectedIdentifier")
server_internal = ProblemType("serverInternal", 500)
unauthorized = ProblemType("unauthorized", 403)
unsupported_contact = ProblemType("unsupportedContact")
unsupported_identifier = ProblemType("unsupportedIdentifier")
conflict = ProblemType("conflict", 409, "malformed")
method_not_allowed = ProblemType("methodNotAllowed", 405, "malformed")
not_found = ProblemType("notFound", 404, "malformed")
too_large = ProblemType("tooLarge", 413, "malformed")
unavailable = ProblemType("unavailable", 503, "serverInternal")
unsupported_media_type = ProblemType("unsupportedMediaType", 415, "malformed")
