"""Ways to corrupt a key and chain, or to make a chain longer, for drills only."""

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

#: Ways in which the fault ``broken_material`` corrupts a new key and chain before the service uses them.
CORRUPTIONS = ("key-mismatch", "truncated", "half-written", "unreadable")
#: Maximum padding in a chain, in bytes; OpenSSL clients reject chains above 100 kB (SSL_MAX_CERT_LIST_DEFAULT).
MAX_PADDING = 65536
#: Object identifier of a meaningless extension that carries padding (RFC 5612 reserves this arc for examples).
NOTHING = x509.ObjectIdentifier("1.3.6.1.4.1.32473.1")


def corrupt(kind: str, pem: bytes) -> bytes:
    """Return a corrupted copy of *pem*, a valid key and chain; *kind*, one of `CORRUPTIONS`, selects the corruption."""
    if kind not in CORRUPTIONS:
        raise ValueError(f"expected one of {', '.join(CORRUPTIONS)}; got {kind!r}")
    begin = pem.index(b"-----BEGIN CERTIFICATE-----")
    if kind == "truncated":  # the leaf certificate is incomplete, as when the disk is full
        return pem[: begin + 200]
    if kind == "half-written":  # only the leaf is complete, as in a file that is read during a write
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
