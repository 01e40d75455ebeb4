"""Read key and certificate files; private keys are encrypted."""

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from authority.errors import KeyFileError
from authority.issuance import Issuer

ISSUING_KEY, ISSUING_CERTIFICATE = "issuing.key.pem", "issuing.pem"


def new_key() -> ec.EllipticCurvePrivateKey:
    """Generate a P-256 private key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_key_pem(key: CertificateIssuerPrivateKeyTypes, passphrase: bytes) -> bytes:
    """Return *key* as PKCS #8 PEM, encrypted with *passphrase*."""
    encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def load_private_key(path: Path, passphrase: bytes) -> CertificateIssuerPrivateKeyTypes:
    """Read an encrypted PEM private key (EC, RSA or Ed25519).

    Raises:
        KeyFileError: the file is missing or malformed, the passphrase is wrong, or the key type is not supported.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise KeyFileError(f"{path}: expected a PEM key encrypted with the given passphrase") from None
    if isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        return key
    raise KeyFileError(f"{path}: expected a key that can sign certificates, got {type(key).__name__}")


def load_certificate(path: Path) -> x509.Certificate:
    """Read a PEM certificate; raise `KeyFileError` if the file is missing or malformed."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise KeyFileError(f"{path}: expected a PEM certificate") from None


def load_issuer(folder: Path, passphrase_file: Path) -> Issuer:
    """Read the issuing CA's key and certificate from *folder*.

    Raises:
        KeyFileError: a file is missing or malformed, or the key does not match the certificate.
    """
    try:
        passphrase = passphrase_file.read_bytes().strip()
    except OSError as error:
        raise KeyFileError(f"{passphrase_file}: {error.strerror}") from None
    certificate = load_certificate(folder / ISSUING_CERTIFICATE)
    key = load_private_key(folder / ISSUING_KEY, passphrase)
    if key.public_key() != certificate.public_key():
        raise KeyFileError(f"{folder}: {ISSUING_KEY} is not the key of {ISSUING_CERTIFICATE}")
    return Issuer(certificate, key, (certificate,))
