"""The private key of a service's ACME account, which is stored in a file (RFC 8555 section 7.3)."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hostfiles.atomic import atomic_write
from telemetry import log

logger = log.get("renewal")


def account_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Load the account key from *path*; create and store a new P-256 key if the file is missing or unusable."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        key = None
    except ValueError as error:
        logger.warning("account_key_unreadable", path=str(path), error=str(error))
        key = None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key
    fresh = ec.generate_private_key(ec.SECP256R1())
    atomic_write(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return fresh
