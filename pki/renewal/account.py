"""The private key of a service's ACME account, stored in a file (RFC 8555 section 7.3)."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hostfiles.atomic import atomic_write
from renewal.errors import AccountError
from telemetry import log

logger = log.get("renewal")


def account_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Load the account key from *path*; create and store a new P-256 key if the file is missing.

    If the new key cannot be stored, the service uses it until it stops, and creates another account at its next start.

    Raises:
        AccountError: the file cannot be read or does not contain a P-256 key.  The file is never overwritten.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        return _new(path)
    except (OSError, ValueError, TypeError) as error:
        key, got = None, str(error)
    else:
        got = f"a key of the kind {type(key).__name__}"
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        remedy = "move the file away to open a new account"
        raise AccountError(f"{path}: expected an unencrypted P-256 key in PEM, got {got}: {remedy}")
    return key


def _new(path: Path) -> ec.EllipticCurvePrivateKey:
    fresh = ec.generate_private_key(ec.SECP256R1())
    try:
        atomic_write(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    except OSError as error:
        logger.warning("account_key_not_stored", path=str(path), error=str(error))
    return fresh
