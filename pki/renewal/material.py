"""Private key and certificate chain in one PEM text: validation, and deliberate corruption for drills.

These functions do not read files or clocks: the time is an argument.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

#: Ways in which the fault ``broken_material`` corrupts a new key and chain before the service uses them.
CORRUPTIONS = ("key-mismatch", "truncated", "half-written", "unreadable")
#: Supported types of certificate keys; the first is the default.
KEYS = ("ecdsa-p256", "rsa-2048")
#: Object identifier of a meaningless extension that carries padding (RFC 5612 reserves this arc for examples).
NOTHING = x509.ObjectIdentifier("1.3.6.1.4.1.32473.1")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class PairError(Exception):
    """A key and chain are unusable: mismatched, malformed, expired, untrusted, or for other names."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A validated private key and its chain."""

    pem: bytes
    names: tuple[str, ...]
    #: Serial number of the leaf, in lower-case hexadecimal.
    serial: str
    issuer: str
    #: Validity of the leaf, in seconds since the epoch.
    not_before: float
    not_after: float

    @property
    def leaf(self) -> x509.Certificate:
        """The leaf certificate, the first in the chain."""
        return x509.load_pem_x509_certificates(self.pem)[0]

    def __repr__(self) -> str:  # the generated repr would contain the private key
        return f"<Pair {self.serial[:8]} {','.join(self.names)} {_utc(self.not_before)} to {_utc(self.not_after)}>"


def read_pair(pem: bytes, names: Sequence[str], now: float, anchors: Sequence[x509.Certificate]) -> Pair:
    """Parse a private key and chain, and validate them as strictly as the strictest client.

    Args:
        pem: private key, leaf and intermediates, in PEM.
        names: DNS names that the leaf must have.
        now: time of validation, in seconds since the epoch.
        anchors: trusted root certificates.

    Raises:
        PairError: the key, the names, the dates or the chain are invalid; the message states what was expected.
    """
    try:
        key = load_pem_private_key(pem, None)
        chain = x509.load_pem_x509_certificates(pem)
        leaf = chain[0]
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise PairError(f"expected a certificate for {', '.join(names)}, got one without names") from None
    except (ValueError, TypeError) as error:
        raise PairError(f"expected a private key and a chain in PEM: {error}") from None
    if key.public_key() != leaf.public_key():
        raise PairError("expected the key of the certificate, got another")
    covered = alternatives.get_values_for_type(x509.DNSName)
    if missing := sorted(set(names) - set(covered)):
        raise PairError(f"expected a certificate for {', '.join(missing)}, got one for {', '.join(covered)}")
    before, after = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    if not before <= now < after:
        when = f"{_utc(before)} to {_utc(after)}"
        raise PairError(f"expected a certificate that is valid at {_utc(now)}, got one for {when}")
    if len(chain) < 2:
        raise PairError("expected the chain after the certificate, got the certificate alone")
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    verifier = PolicyBuilder().store(Store(list(anchors))).time(moment).build_server_verifier(x509.DNSName(names[0]))
    try:
        verifier.verify(leaf, chain[1:])
    except VerificationError as error:
        raise PairError(f"expected a chain that leads to our trust anchor: {error}") from None
    return Pair(pem, tuple(covered), f"{leaf.serial_number:x}", leaf.issuer.rfc4514_string(), before, after)


def new_key(kind: str) -> PrivateKey:
    """Generate a private key of a type in `KEYS`; RSA key generation takes tens of milliseconds.

    Raises:
        ValueError: *kind* is not in `KEYS`.
    """
    match kind:
        case "rsa-2048":
            return rsa.generate_private_key(65537, 2048)
        case "ecdsa-p256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            raise ValueError(f"expected one of {', '.join(KEYS)}; got {kind!r}")


def new_pair_pem(key: PrivateKey, chain: str) -> bytes:
    """Return key and chain as one PEM text; storing both in one file keeps them consistent after a crash."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain.encode()


def corrupt(kind: str, pem: bytes) -> bytes:
    """Return *pem*, a valid key and chain, after corrupting it in the way *kind* (one of `CORRUPTIONS`)."""
    if kind not in CORRUPTIONS:
        raise ValueError(f"expected one of {', '.join(CORRUPTIONS)}; got {kind!r}")
    begin = pem.index(b"-----BEGIN CERTIFICATE-----")
    if kind == "truncated":  # as when the disk is full: the leaf certificate is incomplete
        return pem[: begin + 200]
    if kind == "half-written":  # as when read during a write: the leaf is complete, the chain is not
        return pem[: pem.rindex(b"-----BEGIN CERTIFICATE-----") + 200]
    if kind == "key-mismatch":  # a key that does not belong to the certificate
        stranger = ec.generate_private_key(ec.SECP256R1())
        return stranger.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem[begin:]
    key = load_pem_private_key(pem, None)  # "unreadable": encrypt with a passphrase that the service does not have
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"not known here"))
    return locked + pem[begin:]


def padding_certificate(size: int) -> bytes:
    """Return a superfluous self-signed certificate (PEM) with *size* bytes of padding, to lengthen a chain."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "padding")])
    began = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, began, began + dt.timedelta(days=3650))
    builder = builder.add_extension(x509.UnrecognizedExtension(NOTHING, bytes(size)), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _utc(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
