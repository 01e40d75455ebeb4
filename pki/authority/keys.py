"""Read key and certificate files; private keys are encrypted."""

import re
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from authority.errors import KeyFileError
from authority.issuance import Issuer

#: File with the number of the issuing CA that signs new leaves; if the file is missing, that CA has number 1.
ACTIVE = "active"


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


def issuing_files(folder: Path, number: int) -> tuple[Path, Path]:
    """Return the paths of the certificate chain and the key of the issuing CA *number*; numbers begin at 1."""
    suffix = "" if number == 1 else f"-{number}"
    return folder / f"issuing{suffix}.pem", folder / f"issuing{suffix}.key.pem"


def issuing_numbers(folder: Path) -> list[int]:
    """Return the numbers of all issuing CAs in *folder* in ascending order."""
    found = (re.fullmatch(r"issuing(?:-([2-9]|[1-9][0-9]+))?\.pem", each.name) for each in folder.glob("issuing*.pem"))
    return sorted(int(match[1] or 1) for match in found if match)


def retired_file(folder: Path, number: int) -> Path:
    """Return the path of the file whose existence marks the issuing CA *number* as retired."""
    return issuing_files(folder, number)[0].with_suffix(".retired")


def active_number(folder: Path) -> int:
    """Return the number of the issuing CA that signs new leaves.

    Raises:
        KeyFileError: the file with the number is malformed.
    """
    try:
        return int((folder / ACTIVE).read_text(encoding="ascii"))
    except FileNotFoundError:
        return 1
    except (OSError, ValueError) as error:
        raise KeyFileError(f"{folder / ACTIVE}: expected the number of an issuing CA: {error}") from None


def load_issuer(folder: Path, passphrase_file: Path, number: int = 1) -> Issuer:
    """Load the key and the certificate chain of the issuing CA *number* from *folder*.

    Raises:
        KeyFileError: a file is missing or malformed, or the key does not match the certificate.
    """
    try:
        passphrase = passphrase_file.read_bytes().strip()
    except OSError as error:
        raise KeyFileError(f"{passphrase_file}: {error.strerror}") from None
    certificate_file, key_file = issuing_files(folder, number)
    certificate = load_certificate(certificate_file)
    chain = x509.load_pem_x509_certificates(certificate_file.read_bytes())
    key = load_private_key(key_file, passphrase)
    if key.public_key() != certificate.public_key():
        raise KeyFileError(f"{folder}: {key_file.name} is not the key of {certificate_file.name}")
    return Issuer(certificate, key, tuple(chain))
