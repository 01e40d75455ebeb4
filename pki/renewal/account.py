"""The key of a service's ACME account, stored in a file; the key identifies the account (RFC 8555 section 7.3)."""

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
    """Return the key in *path*; create and store one if the file is missing or unusable."""
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
