"""Exceptions of the `renewal` package, and those that ``cryptography`` raises for malformed input."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

#: Exceptions that cryptography raises for malformed certificates, keys and CRLs; not all derive from ValueError.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class RenewalError(Exception):
    """Base class of all exceptions in `renewal`: no new certificate came into use."""


class PairError(RenewalError):
    """A key and chain are unusable: mismatched, malformed, expired, untrusted, or for other names."""


class AccountError(RenewalError):
    """The account key file cannot be read or does not contain an unencrypted P-256 key."""


class AcmeError(RenewalError):
    """The CA rejected a request, sent a malformed response, or did not respond.

    Attributes:
        kind: ACME problem type without its URN prefix; empty if the CA did not send one.
        retry_after: delay before a retry that the CA requests, in seconds; None if the CA did not send one.
    """

    def __init__(self, message: str, kind: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.kind, self.retry_after = kind, retry_after
