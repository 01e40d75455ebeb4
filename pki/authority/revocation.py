"""Certificate revocation lists (RFC 5280 section 5).

These functions do not read clocks or files: the time and the signing keys are arguments.  Entries are encoded
separately, so that a CA with many entries can reuse them when it signs the next CRL.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509

from authority import der
from authority.issuance import Issuer, authority_key_identifier

#: Revocation reasons, keyed by code (RFC 5280 section 5.3.1); an entry with reason 0 (unspecified) has no reason
#: extension.
REASONS = {
    1: x509.ReasonFlags.key_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
    9: x509.ReasonFlags.privilege_withdrawn,
}
#: Object identifiers of the extensions CRLReason, authorityKeyIdentifier and CRLNumber, in DER.
_REASON, _AUTHORITY_KEY, _NUMBER = (bytes.fromhex(f"0603551d{last}") for last in ("15", "23", "14"))
#: Encoded version number of a CRL of version 2, and tag of the extensions.
_VERSION, _EXTENSIONS = der.integer(1), b"\xa0"


@dataclass(frozen=True, slots=True)
class Revoked:
    """An entry of a CRL."""

    #: Serial number of the certificate.
    serial: int
    #: Time of revocation, in seconds since the epoch.
    at: float
    #: Reason code (RFC 5280 section 5.3.1).
    reason: int


def issue_crl(
    issuer: Issuer, revoked: Iterable[Revoked], number: int, now: float, lifetime: float, backdate: float = 0.0
) -> x509.CertificateRevocationList:
    """Return a signed, complete CRL of *issuer*.

    Args:
        issuer: the CA that issued the certificates and signs the CRL.
        revoked: all entries.
        number: CRL number, larger than the number of every earlier CRL.
        now: time of issuance, in seconds since the epoch.
        lifetime: seconds from *now* to nextUpdate.
        backdate: seconds from thisUpdate to *now*, for clients whose clock is slow.
    """
    entries = b"".join(encode_entry(each) for each in revoked)
    return x509.load_der_x509_crl(sign_crl(issuer, entries, number, now, lifetime, backdate))


def sign_crl(issuer: Issuer, entries: bytes, number: int, now: float, lifetime: float, backdate: float = 0.0) -> bytes:
    """Like `issue_crl`, but return DER; *entries* is the concatenated output of `encode_entry`."""
    key = authority_key_identifier(issuer.key.public_key()).public_bytes()
    extensions = _extension(_AUTHORITY_KEY, key) + _extension(_NUMBER, der.integer(number))
    content = (
        _VERSION
        + issuer.algorithm
        + issuer.certificate.subject.public_bytes()
        + der.time(int(now - backdate))
        + der.time(int(now + lifetime))
        # revokedCertificates must be omitted if it would be empty (RFC 5280, section 5.1.2.6)
        + (der.tlv(der.SEQUENCE, entries) if entries else b"")
        + der.tlv(_EXTENSIONS, der.tlv(der.SEQUENCE, extensions))
    )
    return issuer.signed(der.tlv(der.SEQUENCE, content))


def encode_entry(revoked: Revoked) -> bytes:
    """Return an entry of a CRL in DER."""
    fields = der.integer(revoked.serial) + der.time(int(revoked.at))
    return der.tlv(der.SEQUENCE, fields + _REASON_EXTENSIONS.get(revoked.reason, b""))


def _extension(identifier: bytes, value: bytes) -> bytes:
    return der.tlv(der.SEQUENCE, identifier + der.tlv(der.OCTET_STRING, value))


#: Extensions of an entry in DER, keyed by reason code.
_REASON_EXTENSIONS = {
    code: der.tlv(der.SEQUENCE, _extension(_REASON, der.tlv(der.ENUMERATED, bytes((code,))))) for code in REASONS
}


def seconds(at: float) -> dt.datetime:
    """Convert *at* (seconds since the epoch) to whole seconds, because CRLs and OCSP responses allow no fractions."""
    return dt.datetime.fromtimestamp(int(at), dt.UTC)
