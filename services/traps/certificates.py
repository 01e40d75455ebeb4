"""Certificate chains with one defect each, created when the traps start, so that they never become outdated."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
#: How long before the current time certificates become valid, and how long after it they expire.
BACKDATE, LIFETIME = dt.timedelta(hours=1), dt.timedelta(days=2)
#: A certificate extension that no client knows.
UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")

#: The object identifiers sha256WithRSAEncryption and sha1WithRSAEncryption in DER (RFC 8017 appendix C).
_RSA_SHA256, _RSA_SHA1 = (bytes.fromhex(f"06092a864886f70d0101{last}") for last in ("0b", "05"))


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, and the other certificates that a server sends."""

    certificate: x509.Certificate
    key: Key
    #: Certificates that the server sends after its own, in this order.
    others: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """Key and certificates in PEM, in the format that `ssl.SSLContext.load_cert_chain` reads."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + b"".join(each.public_bytes(Encoding.PEM) for each in (self.certificate, *self.others))

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The server's certificate, followed by the other certificates that the server sends."""
        return (self.certificate, *self.others)


@dataclass(frozen=True, slots=True)
class Request:
    """Contents of a certificate; each defect changes one field."""

    subject: str
    names: Sequence[x509.GeneralName] = ()
    #: Whether this is a CA certificate; None omits the basic constraints extension.
    ca: bool | None = False
    path_length: int | None = None
    usages: Sequence[ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH,)
    #: Start of the validity period, relative to the current time.
    begins: dt.timedelta = -BACKDATE
    #: End of the validity period, relative to the current time.
    ends: dt.timedelta = LIFETIME
    #: Further extensions, each with a flag that marks it as critical.
    more: Sequence[tuple[x509.ExtensionType, bool]] = ()


class Mint:
    """A root CA and an intermediate CA, and the chains with defects that they issue."""

    def __init__(self, now: dt.datetime, host: str = "localhost") -> None:
        """Create the CAs.

        Args:
            now: current time, in UTC.
            host: domain name in all certificates, except for those whose defect is the name.
        """
        self.now, self.host = now.replace(microsecond=0), host
        self.root = self._sign(Request("firstbyte traps root", ca=True, usages=()), _key(), None)
        self.issuer = self.intermediate("firstbyte traps intermediate", path_length=0)

    def _sign(self, request: Request, key: Key, issuer: Identity | None) -> Identity:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, request.subject)])
        signer = issuer.key if issuer else key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(self.now + request.begins)
            .not_valid_after(self.now + request.ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
        if request.ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(request.ca, request.path_length), critical=True)
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        ca = bool(request.ca)
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True
        )
        if request.names:
            builder = builder.add_extension(x509.SubjectAlternativeName(request.names), critical=False)
        if request.usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(request.usages), critical=False)
        for extension, critical in request.more:
            builder = builder.add_extension(extension, critical=critical)
        others = (
            (issuer.certificate, *issuer.others)
            if issuer and issuer.certificate.issuer != issuer.certificate.subject
            else ()
        )
        return Identity(builder.sign(signer, hashes.SHA256()), key, others)

    def intermediate(self, name: str, parent: Identity | None = None, **changes: object) -> Identity:
        """Return a CA certificate issued by *parent* (None: the root); *changes* override fields of `Request`."""
        request = replace(Request(name, ca=True, usages=()), **changes)  # type: ignore[arg-type]  # fields by name
        return self._sign(request, _key(), parent or self.root)

    def leaf(self, issuer: Identity | None = None, key: Key | None = None, **changes: object) -> Identity:
        """Return a server certificate issued by *issuer* (None: the intermediate).

        *key* is the certificate's key (None: a new key); *changes* override fields of the default `Request`.
        """
        request = replace(Request(self.host, [x509.DNSName(self.host)]), **changes)  # type: ignore[arg-type]  # fields by name
        return self._sign(request, key or _key(), issuer or self.issuer)

    @cached_property
    def good(self) -> Identity:
        """A certificate chain without a defect."""
        return self.leaf()

    def self_signed(self) -> Identity:
        """Return a certificate that is signed with its own key."""
        return self._sign(Request(self.host, [x509.DNSName(self.host)]), _key(), None)

    def untrusted(self) -> Identity:
        """Return a chain whose root has the same name as the trusted root, but a different key."""
        return Mint(self.now, self.host).good

    def without_intermediate(self) -> Identity:
        """Return the good certificate without its intermediate."""
        return replace(self.good, others=())

    def reordered(self) -> Identity:
        """Return a chain whose CA certificates are in the wrong order and include an unnecessary certificate."""
        upper = self.intermediate("firstbyte traps upper")
        lower = self.intermediate("firstbyte traps lower", upper)
        made = self.leaf(lower)
        return replace(made, others=(self.root.certificate, *reversed(made.others)))

    def below_expired(self) -> Identity:
        """Return a valid certificate issued by an expired intermediate."""
        return self.leaf(
            self.intermediate("firstbyte traps expired intermediate", begins=-2 * LIFETIME, ends=-BACKDATE)
        )

    def below_leaf(self) -> Identity:
        """Return a certificate issued by a server certificate instead of a CA."""
        return self.leaf(self.leaf())

    def too_long(self) -> Identity:
        """Return a chain with one more CA than the intermediate's path length constraint (0) allows."""
        return self.leaf(self.intermediate("firstbyte traps too deep", self.issuer))

    def outside_constraints(self) -> Identity:
        """Return a chain whose intermediate is restricted by name constraints to another domain."""
        allowed = x509.NameConstraints([x509.DNSName("example.net")], None)
        return self.leaf(self.intermediate("firstbyte traps constrained", more=[(allowed, True)]))

    def forged(self) -> Identity:
        """Return the good chain with one bit of the server certificate's signature flipped."""
        der = bytearray(self.good.certificate.public_bytes(Encoding.DER))
        der[-1] ^= 1
        return replace(self.good, certificate=x509.load_der_x509_certificate(bytes(der)))

    def sha1_signed(self) -> Identity:
        """Return a chain whose server certificate is signed with SHA-1.

        Since `cryptography` refuses to issue such certificates, the method creates a certificate signed with SHA-256,
        replaces the algorithm in it, and signs the result again.
        """
        key = rsa_key(2048)
        issuer = self._sign(Request("firstbyte traps RSA intermediate", ca=True, usages=()), key, self.root)
        made = self.leaf(issuer)
        body = made.certificate.tbs_certificate_bytes.replace(_RSA_SHA256, _RSA_SHA1)
        signature = key.sign(body, padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - SHA-1 is this trap's defect
        whole = made.certificate.public_bytes(Encoding.DER).replace(_RSA_SHA256, _RSA_SHA1)
        der = whole[: -len(signature)] + signature
        return replace(made, certificate=x509.load_der_x509_certificate(der.replace(whole[4 : 4 + len(body)], body)))

    def many_names(self, count: int = 1000) -> Identity:
        """Return a certificate with *count* names, the last of which is the name of the host."""
        names = [x509.DNSName(f"{n}.example.net") for n in range(count - 1)]
        return self.leaf(names=[*names, x509.DNSName(self.host)])

    def long_chain(self, count: int = 8) -> Identity:
        """Return a chain with *count* intermediate CAs."""
        issuer = self.root
        for n in range(count):
            issuer = self.intermediate(f"firstbyte traps level {n + 1}", issuer)
        return self.leaf(issuer)

    def padded(self, size: int = 24_000) -> Identity:
        """Return the good chain, followed by about *size* bytes of unrelated certificates."""
        others, filler = list(self.good.others), self.many_names(1000).certificate
        others += [filler] * max(1, size // len(filler.public_bytes(Encoding.DER)))
        return replace(self.good, others=tuple(others))


def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """Return a new RSA key of *bits* bits."""
    return rsa.generate_private_key(65537, bits)


def address(text: str) -> x509.IPAddress:
    """Return the IP address *text* as a subject alternative name."""
    return x509.IPAddress(ipaddress.ip_address(text))


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())
