"""Issues leaves fast: the parts that all leaves of one issuer and profile share are encoded and checked only once.

Only serial number, validity, subject, public key and subjectAltName differ between leaves.  These fields are checked
for each leaf (`authority.lint`) and inserted into the prepared DER, which is then signed.  The result is identical,
byte for byte, to that of `issue_leaf` for the same fields.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authority import der
from authority.errors import AuthorityError
from authority.issuance import Issuer, Urls, issue_leaf, new_serial
from authority.lint import check_fields, check_leaf

#: DNS name in the specimen; it is within the name constraints of every issuer.
_SPECIMEN = "specimen.localhost.test"
#: Object identifiers of commonName and of the extensions that differ between leaves, in DER.
_COMMON_NAME = bytes.fromhex("0603550403")
_SUBJECT_ALT_NAME, _SUBJECT_KEY_IDENTIFIER = bytes.fromhex("0603551d11"), bytes.fromhex("0603551d0e")
#: Size of a SHA-1 hash in bytes. The subject key identifier is a SHA-1 hash, and the last field of the certificate.
_SHA1 = 20
_TRUE = bytes.fromhex("0101ff")
#: Tag of dNSName in a GeneralName, and tag of the extensions in a TBSCertificate.
_DNS_NAME, _EXTENSIONS = b"\x82", b"\xa3"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A newly issued leaf."""

    serial: int
    #: Start and end of the validity period, in seconds since the epoch.
    not_before: int
    not_after: int
    der: bytes

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "Leaf":
        """Return *certificate* as a leaf."""
        begin, end = (int(at.timestamp()) for at in (certificate.not_valid_before_utc, certificate.not_valid_after_utc))
        return cls(certificate.serial_number, begin, end, certificate.public_bytes(Encoding.DER))

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf as a certificate object of the package ``cryptography``."""
        return x509.load_der_x509_certificate(self.der)


class LeafTemplate:
    """Issues leaves of one CA that have the same extensions."""

    def __init__(self, issuer: Issuer, urls: Urls | None, usages: Sequence[x509.ObjectIdentifier]) -> None:
        """Encode a specimen, and check it with the complete lint; see `issue_leaf` for the arguments.

        Raises:
            LintError: lint found problems in the specimen.
            AuthorityError: the issuer's key is not an EC key.
        """
        self._issuer, self._algorithm = issuer, issuer.algorithm
        begin = issuer.certificate.not_valid_before_utc.timestamp()
        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        specimen = issue_leaf(issuer, key, [_SPECIMEN], begin, 60.0, 0.0, urls, usages, check_leaf)
        fields = list(der.split(der.content(specimen.tbs_certificate_bytes)))
        self._version, _, _, self._name, *_, last = fields
        extensions = list(der.split(der.content(der.content(last))))
        place = next(n for n, each in enumerate(extensions) if _SUBJECT_ALT_NAME in each[:12])
        if _SUBJECT_KEY_IDENTIFIER not in extensions[-1][:12]:
            raise AuthorityError("expected subjectKeyIdentifier as last extension")
        self._before, self._after = b"".join(extensions[:place]), b"".join(extensions[place + 1 :])[:-_SHA1]

    def issue(
        self, key: CertificatePublicKeyTypes, names: Sequence[str], now: float, lifetime: float, backdate: float
    ) -> Leaf:
        """Check the fields of a leaf, and sign it; see `issue_leaf` for the arguments.

        Raises:
            LintError: lint found problems in the fields.
        """
        serial, begin, end = new_serial(), int(now - backdate), int(min(now + lifetime, self._issuer.not_after))
        check_fields(self._issuer, serial, begin, end, names, key)
        tbs = self.to_be_signed(serial, begin, end, names, key)
        return Leaf(serial, begin, end, self._issuer.signed(tbs))

    def to_be_signed(
        self, serial: int, begin: int, end: int, names: Sequence[str], key: CertificatePublicKeyTypes
    ) -> bytes:
        """Return the TBSCertificate (RFC 5280 section 4.1) with these fields; times are in seconds since the epoch."""
        public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        *_, bits = der.split(der.content(public))
        identifier = hashlib.sha1(der.content(bits)[1:], usedforsecurity=False).digest()
        general = der.tlv(der.SEQUENCE, b"".join(der.tlv(_DNS_NAME, each.encode("ascii")) for each in names))
        subject = b""
        if len(names[0]) <= 64:
            name = der.tlv(der.SEQUENCE, _COMMON_NAME + der.tlv(der.UTF8_STRING, names[0].encode("ascii")))
            subject = der.tlv(der.SET, name)
        extensions = (
            self._before
            + _extension(_SUBJECT_ALT_NAME + (b"" if subject else _TRUE), general)
            + self._after
            + identifier
        )
        return der.tlv(
            der.SEQUENCE,
            self._version
            + der.integer(serial)
            + self._algorithm
            + self._name
            + der.tlv(der.SEQUENCE, der.time(begin) + der.time(end))
            + der.tlv(der.SEQUENCE, subject)
            + public
            + der.tlv(_EXTENSIONS, der.tlv(der.SEQUENCE, extensions)),
        )


def _extension(start: bytes, value: bytes) -> bytes:
    """Return an extension in DER; *start* is its encoded object identifier and, if it is critical, the flag."""
    return der.tlv(der.SEQUENCE, start + der.tlv(der.OCTET_STRING, value))
