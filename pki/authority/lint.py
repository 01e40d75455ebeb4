"""Checks leaf certificates before they are signed; the checks are cheap, because they run for every issuance.

`check_leaf` checks a complete certificate, signed with a temporary key that no one trusts.  `check_fields` checks only
the fields that differ between leaves; `authority.leaf_template` checks a complete specimen once, and then calls
`check_fields` for each leaf.  In the tests, the thorough but slow `pkilint` checks every kind of certificate.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtensionOID

from authority.errors import AuthorityError
from authority.issuance import Issuer

#: A host name in lower case (RFC 1123 section 2.1), with at least two labels.
HOST = re.compile(r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")
#: Maximum lifetime of a leaf, in seconds: 90 days, and one day for backdating.
MAX_LIFETIME = 91 * 86400.0
#: Minimum and maximum size of serial numbers in bits (BR 7.1; RFC 5280 section 4.1.2.2: 20 octets with the sign bit).
MIN_SERIAL, MAX_SERIAL = 64, 159
#: Allowed extensions, and whether each one must be critical (RFC 5280 section 4.2, BR 7.1.2.7.6).
CRITICAL = {
    ExtensionOID.BASIC_CONSTRAINTS: True,
    ExtensionOID.KEY_USAGE: True,
    ExtensionOID.EXTENDED_KEY_USAGE: False,
    ExtensionOID.AUTHORITY_KEY_IDENTIFIER: False,
    ExtensionOID.SUBJECT_KEY_IDENTIFIER: False,
    ExtensionOID.CRL_DISTRIBUTION_POINTS: False,
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS: False,
}
#: Extensions that every leaf must have, in addition to subjectAltName.
REQUIRED = tuple(CRITICAL)[:4]


class LintError(AuthorityError):
    """Lint found problems in a leaf certificate, which was therefore not signed."""


def check_leaf(leaf: x509.Certificate, issuer: Issuer) -> None:
    """Raise `LintError` with all findings if *issuer* must not sign *leaf*."""
    if findings := [finding for check in CHECKS for finding in check(leaf, issuer)]:
        raise LintError(f"not signed: {'; '.join(findings)}")


def check_fields(
    issuer: Issuer, serial: int, begin: float, end: float, names: Sequence[str], key: CertificatePublicKeyTypes
) -> None:
    """Raise `LintError` with all findings if *issuer* must not sign a leaf with these fields.

    Args:
        issuer: the CA.
        serial: serial number.
        begin: start of the validity period, in seconds since the epoch.
        end: end of the validity period, in seconds since the epoch.
        names: DNS names in subjectAltName.
        key: the subject's public key.
    """
    if findings := list(_fields(issuer, serial, begin, end, names, key)):
        raise LintError(f"not signed: {'; '.join(findings)}")


def _fields(
    issuer: Issuer, serial: int, begin: float, end: float, names: Sequence[str], key: CertificatePublicKeyTypes
) -> Iterator[str]:
    if not MIN_SERIAL <= (bits := serial.bit_length()) <= MAX_SERIAL:
        yield f"expected a serial number of {MIN_SERIAL} to {MAX_SERIAL} bits, got {bits}"
    if not 0 < (life := end - begin) <= MAX_LIFETIME:
        yield f"expected a lifetime of at most {MAX_LIFETIME / 86400:.0f} days, got {life:.0f} s"
    if end > issuer.not_after:
        yield f"expected to end before the issuer, {end - issuer.not_after:.0f} s earlier"
    if len(set(names)) != len(names) or not names:
        yield f"expected distinct DNS names and no others in subjectAltName, got {len(names)} names"
    for name in names:
        host = name.removeprefix("*.")
        if not HOST.fullmatch(host):
            yield f"expected a host name in lower case, got {name!r}"
        elif not issuer.permits(host):
            yield f"expected a name within the issuer's name constraints, got {name!r}"
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < 2048:
        yield f"expected an RSA key of at least 2048 bits, got {key.key_size}"
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        yield f"expected an RSA or EC key, got {type(key).__name__}"
    if key == issuer.public_key:
        yield "expected another key than the issuer's"


def _structure(leaf: x509.Certificate, issuer: Issuer) -> Iterator[str]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        yield "expected subjectAltName, got none"
        return
    names = [each.value for each in extension.value if isinstance(each, x509.DNSName)]
    if len(names) != len(list(extension.value)):
        yield f"expected distinct DNS names and no others in subjectAltName, got {len(list(extension.value))} names"
    begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    yield from _fields(issuer, leaf.serial_number, begin, end, names, leaf.public_key())
    common = [each.value for each in leaf.subject]
    if len(common) > 1 or (common and common[0] not in names):
        yield f"expected a common name from subjectAltName and nothing else in the subject, got {common}"
    if extension.critical != (not common):
        yield "expected subjectAltName to be critical exactly if the subject is empty"
    if leaf.issuer != issuer.certificate.subject:
        yield "expected the issuer's subject as issuer"


def _extensions(leaf: x509.Certificate, issuer: Issuer) -> Iterator[str]:
    found = {each.oid: each for each in leaf.extensions if each.oid != ExtensionOID.SUBJECT_ALTERNATIVE_NAME}
    for oid in REQUIRED:
        if oid not in found:
            yield f"expected the extension {oid.dotted_string}, got none"
    for oid, extension in found.items():
        if CRITICAL.get(oid) is not extension.critical:
            yield f"expected no extension {oid.dotted_string} with critical={extension.critical}"
        value = extension.value
        if isinstance(value, x509.BasicConstraints) and value.ca:
            yield "expected cA to be false"
        if isinstance(value, x509.AuthorityKeyIdentifier) and value.key_identifier != issuer.key_id:
            yield "expected the key identifier of the issuer"
        if isinstance(value, x509.KeyUsage) and (value.key_cert_sign or value.crl_sign or not value.digital_signature):
            yield "expected digitalSignature, and neither keyCertSign nor cRLSign"


#: All checks, as functions that yield findings.
CHECKS: tuple[Callable[[x509.Certificate, Issuer], Iterator[str]], ...] = (_structure, _extensions)
