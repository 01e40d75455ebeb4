"""Certificate revocation lists (RFC 5280 section 5).

These functions do not read clocks or files: the time and the signing keys are arguments.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509

from authority.issuance import Issuer, authority_key_identifier, hash_for

#: Revocation reasons by code (RFC 5280 section 5.3.1); an entry with reason 0 (unspecified) has no reason extension.
REASONS = {
    1: x509.ReasonFlags.key_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
    9: x509.ReasonFlags.privilege_withdrawn,
}


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
    # `add_revoked_certificate` copies all earlier entries, so calling it once per entry would take quadratic time.
    builder = x509.CertificateRevocationListBuilder(revoked_certificates=[_entry(each) for each in revoked])
    return (
        builder.issuer_name(issuer.certificate.subject)
        .last_update(seconds(now - backdate))
        .next_update(seconds(now + lifetime))
        .add_extension(authority_key_identifier(issuer.key.public_key()), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
        .sign(issuer.key, hash_for(issuer.key))
    )


def _entry(revoked: Revoked) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(revoked.serial, seconds(revoked.at))
    if (reason := REASONS.get(revoked.reason)) is not None:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()


def seconds(at: float) -> dt.datetime:
    """Convert *at* (seconds since the epoch) to whole seconds, because CRLs and OCSP responses allow no fractions."""
    return dt.datetime.fromtimestamp(int(at), dt.UTC)
