"""Key and chain in one PEM text: checked before use, and (for drills) spoilt on purpose.

No file, no clock: the time is an argument.
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

#: Ways in which material goes bad between the CA and the server (fault ``broken_material``).
SPOILT = ("key-mismatch", "truncated", "half-written", "unreadable")
#: Kinds of keys that a certificate may be for; the first is what nobody has to ask for.
KEYS = ("ecdsa-p256", "rsa-2048")
#: An extension that means nothing (RFC 5612: an arc for examples).
NOTHING = x509.ObjectIdentifier("1.3.6.1.4.1.32473.1")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class PairError(Exception):
    """Key and chain that must not be used: mismatched, malformed, expired, untrusted, or for other names."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and its chain, checked."""

    pem: bytes
    names: tuple[str, ...]
    #: Lower-case hexadecimal.
    serial: str
    issuer: str
    #: Seconds since the epoch.
    not_before: float
    not_after: float

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate itself, first of the chain."""
        return x509.load_pem_x509_certificates(self.pem)[0]

    def __repr__(self) -> str:  # the generated one would show the key
        return f"<Pair {self.serial[:8]} {','.join(self.names)} {_utc(self.not_before)} to {_utc(self.not_after)}>"


def read_pair(pem: bytes, names: Sequence[str], now: float, anchors: Sequence[x509.Certificate]) -> Pair:
    """Check a key and chain in one PEM text, as the strictest client would.

    Args:
        pem: private key, leaf, chain.
        names: that the leaf must hold.
        now: seconds since the epoch.
        anchors: roots, one of which the chain must lead to.

    Raises:
        PairError: with what was expected and what came.
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
    """Return a fresh key, of a kind in `KEYS`; RSA takes tens of milliseconds to find its primes."""
    match kind:
        case "rsa-2048":
            return rsa.generate_private_key(65537, 2048)
        case "ecdsa-p256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            raise ValueError(f"expected one of {', '.join(KEYS)}; got {kind!r}")


def new_pair_pem(key: PrivateKey, chain: str) -> bytes:
    """Return key and chain in one PEM text: one file, so that no crash leaves a half of a pair."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain.encode()


def spoil(kind: str, pem: bytes) -> bytes:
    """Return *pem*, a good pair, gone bad in one of the ways of `SPOILT`."""
    if kind not in SPOILT:
        raise ValueError(f"expected one of {', '.join(SPOILT)}; got {kind!r}")
    begin = pem.index(b"-----BEGIN CERTIFICATE-----")
    if kind == "truncated":  # a full disk: the certificate ends in the middle
        return pem[: begin + 200]
    if kind == "half-written":  # read while it is being written: the leaf is whole, its chain is not
        return pem[: pem.rindex(b"-----BEGIN CERTIFICATE-----") + 200]
    if kind == "key-mismatch":  # the key of another renewal
        stranger = ec.generate_private_key(ec.SECP256R1())
        return stranger.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + pem[begin:]
    key = load_pem_private_key(pem, None)  # unreadable: nobody told the service the passphrase
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"not known here"))
    return locked + pem[begin:]


def ballast(octets: int) -> bytes:
    """Return a certificate (PEM) that no chain needs, with *octets* of nothing in it: what a careless operator sends along."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ballast")])
    began = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, began, began + dt.timedelta(days=3650))
    builder = builder.add_extension(x509.UnrecognizedExtension(NOTHING, bytes(octets)), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _utc(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
