"""Evidence of a drill for auditors: a signed manifest of a run's files and of the requirements covered by its checks.

The signature (Ed25519) shows that the files come from a run in a lab that has the key.  The signature does not show
that the lab resembles an operator's own systems.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hostfiles.atomic import atomic_write

#: Name of the manifest in a run's folder, and name of the private key in a lab's results folder.  Files whose names
#: begin with a dot are not copied out of the lab.
FILE, KEY = "evidence.json", ".evidence.key"
#: Title of the document whose sections `REQUIREMENTS` lists.
STANDARD = "CA/Browser Forum Baseline Requirements for TLS Server Certificates"
#: Titles of the sections of `STANDARD`, by section number.
SECTIONS = {
    "4.9.1.1": "reasons and deadlines for revoking a subscriber certificate",
    "4.9.5": "time within which the CA must process a revocation request",
    "4.9.7": "CRL issuance frequency",
    "4.9.9": "availability of revocation information",
    "4.9.12": "special requirements related to key compromise",
    "4.10.1": "revocation entries stay until the certificates have expired",
    "5.6": "key changeover (the standard leaves the procedure to the CA)",
    "5.7.1": "incident and compromise handling procedures, and their yearly test",
    "5.7.3": "entity private key compromise procedures",
    "6.1.1.3": "subscriber keys that the CA must refuse",
}
#: For each drill, the sections covered by its checks, keyed by the start of a check's name; "" covers all other checks.
REQUIREMENTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "revoke-client": {"exposure": ("4.9.5",), "OpenSSL with the CRL": ("4.9.7", "4.9.9"), "": ("5.7.1",)},
    "revocation-data": {
        "defective CRLs": ("4.9.7", "4.9.9"),
        "alarm before nextUpdate": ("4.9.7", "4.9.9"),
        "": ("5.7.1",),
    },
    "leaf-compromise": {
        "exposure": ("4.9.1.1", "4.9.5"),
        "all certificates with the key revoked": ("4.9.1.1", "4.9.12"),
        "the stolen key is not certified again": ("6.1.1.3",),
        "": ("5.7.1", "5.7.3"),
    },
    "renewal-storm": {"renewed before": ("4.9.1.1",), "": ("5.7.1",)},
    "mass-revocation": {
        "replaced within": ("4.9.1.1",),
        "recalled certificates on the CRL": ("4.9.1.1", "4.9.7"),
        "": ("5.7.1",),
    },
    "one-name-fails": {"": ("5.7.1",)},
    "acme-chaos": {"": ("5.7.1",)},
    "ca-outage": {"": ("5.7.1",)},
    "intermediate-rollover": {"CRL of the old CA": ("4.9.9", "4.10.1"), "": ("5.6",)},
    "root-rollover": {"": ("5.6",)},
}


class EvidenceError(Exception):
    """A manifest is missing or malformed, or does not match the files; the message is one line for the user."""


def sections(drill: str, check: str) -> list[str]:
    """Return the numbers of the sections covered by a check of *drill*; empty if there are none."""
    wanted = REQUIREMENTS.get(drill, {})
    named = (found for begin, found in wanted.items() if begin and check.startswith(begin))
    return list(next(named, wanted.get("", ())))


def write(folder: Path, results: Path) -> Path:
    """Write the signed manifest of the run in *folder*; return its path.

    Args:
        folder: folder of the run, with result.json and all other files of the run.
        results: results folder of the lab, which contains the private key; a missing key is created.

    Raises:
        OSError: a file cannot be read or written.
        EvidenceError: the key file does not contain an Ed25519 key.
    """
    key = _key(results / KEY)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    checks = [
        {
            "name": each["name"], "expected": each["expected"], "got": each["got"], "ok": each["ok"],
            "sections": sections(result["name"], each["name"]),
        }
        for each in result["checks"]
    ]  # fmt: skip
    used = sorted({number for check in checks for number in check["sections"]})
    body = {
        "drill": result["name"],
        "time": result["manifest"].get("time", ""),
        "verdict": result["verdict"],
        "control": result["control"],
        "quick": result["quick"],
        "seed": result["seed"],
        "standard": STANDARD,
        "sections": {number: SECTIONS[number] for number in used},
        "checks": checks,
        "files": _digests(folder),
        "public_key": _base64(key.public_key().public_bytes_raw()),
    }
    signed = {**body, "signature": _base64(key.sign(_canonical(body)))}
    atomic_write(folder / FILE, json.dumps(signed, indent=2).encode() + b"\n")
    return folder / FILE


def verify(folder: Path) -> dict[str, Any]:
    """Verify the signature and the files of the run in *folder*; return the manifest.

    Raises:
        EvidenceError: there is no manifest, its signature is wrong, or a file was changed, added or removed.
    """
    path = folder / FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        signature = base64.b64decode(body.pop("signature"), validate=True)
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(body["public_key"], validate=True))
        public.verify(signature, _canonical(body))
        files: dict[str, str] = body["files"]
    except FileNotFoundError:
        raise EvidenceError(f"{path}: expected the manifest of a drill, got no file") from None
    except InvalidSignature:
        raise EvidenceError(f"{path}: expected a manifest that is unchanged, got a wrong signature") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        raise EvidenceError(f"{path}: expected a manifest as `firstbyte drill` writes it: {error}") from None
    found = _digests(folder)
    for name in sorted(files.keys() | found.keys()):
        if files.get(name) != found.get(name):
            what = "missing" if name not in found else "added" if name not in files else "changed"
            raise EvidenceError(f"{folder / name}: expected the files of the run, but this one was {what}")
    return {**body, "signature": _base64(signature)}


def _digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a run except the manifest, keyed by file name."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != FILE)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _key(path: Path) -> Ed25519PrivateKey:
    """Load the lab's private key from *path*; create a new key if the file is missing."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        made = Ed25519PrivateKey.generate()
        atomic_write(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        return made
    except (ValueError, TypeError) as error:
        raise EvidenceError(f"{path}: expected an Ed25519 key in PEM: {error}; move the file away") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise EvidenceError(f"{path}: expected an Ed25519 key, got {type(key).__name__}; move the file away")
    return key
