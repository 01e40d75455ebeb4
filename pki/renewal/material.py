"""Private key and certificate chain in one PEM text: parsing and validation.

These functions do not read files or clocks: the time is an argument.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from renewal.errors import UNREADABLE, PairError

#: Supported types of certificate keys; the first is the default.
KEYS = ("ecdsa-p256", "rsa-2048")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Pair:
    """A validated private key and its chain."""

    pem: bytes
    names: tuple[str, ...]
    #: Serial number of the leaf, in lower-case hexadecimal.
    serial: str
    issuer: str
    #: Start of the leaf's validity, in seconds since the epoch.
    not_before: float
    #: Expiry of the leaf, in seconds since the epoch.
    not_after: float

    @property
    def leaf(self) -> x509.Certificate:
        """The leaf certificate, the first in the chain."""
        return x509.load_pem_x509_certificates(self.pem)[0]

    def __repr__(self) -> str:  # the generated repr would contain the private key
        return f"<Pair {self.serial[:8]} {','.join(self.names)} {_utc(self.not_before)} to {_utc(self.not_after)}>"


def covered_host(name: str) -> str:
    """Return a host name covered by a certificate for *name*; *name* may begin with a wildcard label."""
    return name.replace("*.", "any.", 1) if name.startswith("*.") else name


def read_pair(pem: bytes, names: Sequence[str], now: float, anchors: Sequence[x509.Certificate]) -> Pair:
    """Parse a private key and chain, and validate key, names, dates and chain.

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
        own = leaf.public_key()
        covered = _names(leaf)
    except UNREADABLE as error:
        raise PairError(f"expected a private key and a chain in PEM: {error}") from None
    if key.public_key() != own:
        raise PairError("expected the key of the certificate, got another")
    if not covered:
        raise PairError(f"expected a certificate for {', '.join(names)}, got one without names")
    if missing := sorted(set(names) - set(covered)):
        raise PairError(f"expected a certificate for {', '.join(missing)}, got one for {', '.join(covered)}")
    before, after = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    if not before <= now < after:
        when = f"{_utc(before)} to {_utc(after)}"
        raise PairError(f"expected a certificate that is valid at {_utc(now)}, got one for {when}")
    if len(chain) < 2:
        raise PairError("expected the chain after the certificate, got the certificate alone")
    moment = dt.datetime.fromtimestamp(now, dt.UTC)
    host = x509.DNSName(covered_host(names[0]))
    verifier = PolicyBuilder().store(Store(list(anchors))).time(moment).build_server_verifier(host)
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


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return alternatives.get_values_for_type(x509.DNSName)


def _utc(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
