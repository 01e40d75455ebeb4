"""OCSP responses (RFC 6960) of a delegated responder, in the profile of RFC 5019: one certificate, no nonce.

These functions do not read clocks or files: the time and the signing keys are arguments.
"""

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authority.errors import AuthorityError
from authority.issuance import BACKDATE, Issuer, authority_key_identifier, end_entity_usage, hash_for, new_certificate
from authority.keys import new_key
from authority.revocation import REASONS, Revoked, seconds

#: Hash functions of a CertID (RFC 6960 section 4.1.1) that requests may use; RFC 5019 section 2.1.1 requires SHA-1.
HASHES: tuple[hashes.HashAlgorithm, ...] = (hashes.SHA1(), hashes.SHA256())  # noqa: S303 - SHA-1 only identifies the issuer and protects no signature
#: Lifetime of a responder's certificate, in seconds.  The lifetime is short because the certificate cannot be
#: revoked (RFC 6960 section 4.2.2.2.1).
RESPONDER_LIFETIME = 86400.0
#: Unsigned responses: to malformed requests, and to requests about a certificate that this responder does not know
#: (RFC 5019 section 2.2.3).
MALFORMED, UNAUTHORIZED = (
    ocsp.OCSPResponseBuilder.build_unsuccessful(status)
    for status in (ocsp.OCSPResponseStatus.MALFORMED_REQUEST, ocsp.OCSPResponseStatus.UNAUTHORIZED)
)


class BadRequestError(AuthorityError):
    """An OCSP request is malformed, or asks about several certificates."""


@dataclass(frozen=True, slots=True)
class Responder:
    """Key and certificate of a delegated OCSP responder; the certificate permits signing responses for the issuer."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes


@dataclass(frozen=True, slots=True)
class CertId:
    """Identifies the certificate that an OCSP request asks about."""

    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int
    algorithm: hashes.HashAlgorithm

    @property
    def key(self) -> tuple[bytes, bytes, int]:
        """The fields as a dictionary key, without the hash function: the length of the hashes identifies it."""
        return self.issuer_name_hash, self.issuer_key_hash, self.serial


def new_responder(issuer: Issuer, now: float) -> Responder:
    """Return a responder for *issuer* with a new key; its certificate expires no later than the CA certificate.

    The certificate contains id-pkix-ocsp-nocheck: clients do not check whether it was revoked.
    """
    key = new_key()
    return Responder(_responder_certificate(issuer, key.public_key(), now), key)


def _responder_certificate(issuer: Issuer, public_key: CertificatePublicKeyTypes, now: float) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "firstbyte lab OCSP responder")])
    return (
        new_certificate(subject, issuer, public_key, now, RESPONDER_LIFETIME, BACKDATE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(end_entity_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False)
        .add_extension(x509.OCSPNoCheck(), critical=False)
        .add_extension(authority_key_identifier(issuer.key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .sign(issuer.key, hash_for(issuer.key))
    )


def read_request(der: bytes) -> CertId:
    """Parse an OCSP request about one certificate; request extensions, such as a nonce, are ignored.

    Raises:
        BadRequestError: the request is malformed, asks about several certificates, or uses an unknown hash function.
    """
    try:
        request = ocsp.load_der_ocsp_request(der)
        return CertId(request.issuer_name_hash, request.issuer_key_hash, request.serial_number, request.hash_algorithm)
    except (ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm) as error:
        raise BadRequestError(f"expected an OCSP request for one certificate, in DER: {error}") from None


def issuer_hashes(issuer: Issuer) -> list[tuple[bytes, bytes]]:
    """Return the hashes of the issuer's name and key, as in OCSP requests, for each hash function in `HASHES`."""
    found = []
    for algorithm in HASHES:
        request = ocsp.OCSPRequestBuilder().add_certificate(issuer.certificate, issuer.certificate, algorithm).build()
        name = hashes.Hash(algorithm)
        # The name hash in `request` is useless here: it covers the name of the CA that certified the issuer.
        name.update(issuer.certificate.subject.public_bytes())
        found.append((name.finalize(), request.issuer_key_hash))
    return found


def sign_response(
    responder: Responder, certificate: CertId, revoked: Revoked | None, now: float, lifetime: float, backdate: float
) -> bytes:
    """Return a signed OCSP response in DER with the status of *certificate*.

    Args:
        responder: signs the response, which includes its certificate.
        certificate: the certificate that the request asks about; the responder's issuer issued this certificate.
        revoked: time and reason of the revocation; None gives the status "good".
        now: time of signing, in seconds since the epoch.
        lifetime: seconds from *now* to nextUpdate.
        backdate: seconds from thisUpdate to *now*, for clients whose clocks are behind.
    """
    status = ocsp.OCSPCertStatus.GOOD if revoked is None else ocsp.OCSPCertStatus.REVOKED
    return (
        ocsp.OCSPResponseBuilder()
        .add_response_by_hash(
            certificate.issuer_name_hash,
            certificate.issuer_key_hash,
            certificate.serial,
            certificate.algorithm,
            status,
            seconds(now - backdate),
            seconds(now + lifetime),
            None if revoked is None else seconds(revoked.at),
            None if revoked is None else REASONS.get(revoked.reason),
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate)
        .certificates([responder.certificate])
        .sign(responder.key, hash_for(responder.key))
        .public_bytes(Encoding.DER)
    )
