"""Keys for encryption at rest (AES-256-GCM), in a file that is kept outside the database.

A key's id is a digest of the key, so a wrong key cannot be used by mistake.  This module takes no locks: callers hold
the database's write lock while they create, rotate or delete keys.
"""

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hostfiles.atomic import atomic_write

#: Sizes of a key and of a nonce, in bytes.  Nonces are random; with fewer than 2^32 per key, the probability of a
#: repetition is negligible (NIST SP 800-38D section 8.3).
KEY, NONCE = 32, 12
_PURPOSE = b"firstbyte note v1"


class KeyringError(Exception):
    """The key file is unreadable or malformed; the message contains its path."""


class TamperedError(Exception):
    """A ciphertext belongs to another identity or was changed, or its key was deleted."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An encrypted value, as the database stores it."""

    key_id: str
    nonce: bytes
    #: Ciphertext and tag.
    data: bytes


class Keyring:
    """The keys in a file or, without a path, one key in memory."""

    def __init__(self, path: Path | None) -> None:
        """Read the file if it exists; `create` creates it.

        Raises:
            KeyringError: the file is unreadable or malformed.
        """
        self.path = path
        self.current = ""
        self._keys: dict[str, AESGCM] = {}
        self._raw: dict[str, bytes] = {}
        self._stamp: tuple[int, int] | None = None
        if path is None or not path.exists():
            return
        self.refresh()

    def __repr__(self) -> str:
        return f"<Keyring {self.current} of {len(self._keys)}>"

    @property
    def ids(self) -> list[str]:
        """The ids of all keys, oldest first."""
        return list(self._raw)

    def create(self) -> None:
        """Create the first key if there is no key yet."""
        self.refresh()
        if not self._raw:
            self.rotate()

    def refresh(self) -> None:
        """Read the file again if another process has replaced it.

        Raises:
            KeyringError: the file cannot be used; the keys in memory are kept.
        """
        if self.path is None or not self.path.exists():
            return
        status = self.path.stat()
        if self._stamp == (stamp := (status.st_ino, status.st_mtime_ns)):
            return
        try:
            found = json.loads(self.path.read_text(encoding="ascii"))
            raw = {name: base64.b64decode(text, validate=True) for name, text in found["keys"].items()}
            if any(len(key) != KEY or _id(key) != name for name, key in raw.items()) or found["current"] not in raw:
                raise ValueError("a key that does not match its id")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise KeyringError(f"{self.path}: expected keys of {KEY} bytes under their ids: {error}") from None
        self._stamp, self._raw, self.current = stamp, raw, found["current"]
        self._keys = {name: AESGCM(key) for name, key in raw.items()}

    def rotate(self) -> str:
        """Create a new key for all further encryption; return its id.  The old keys can still decrypt."""
        key = secrets.token_bytes(KEY)
        self._save({**self._raw, _id(key): key}, _id(key))
        return self.current

    def retire(self, used: set[str]) -> list[str]:
        """Delete the keys that are neither current nor in *used*; return their ids."""
        gone = [name for name in self._raw if name != self.current and name not in used]
        if gone:
            self._save({name: key for name, key in self._raw.items() if name not in gone}, self.current)
        return gone

    def seal(self, plaintext: bytes, identity: str) -> Sealed:
        """Encrypt *plaintext* with *identity* as associated data: decryption requires the same identity."""
        nonce, name = secrets.token_bytes(NONCE), self.current
        return Sealed(name, nonce, self._keys[name].encrypt(nonce, plaintext, _bound(name, identity)))

    def open(self, sealed: Sealed, identity: str) -> bytes:
        """Decrypt a value that was encrypted for *identity*.

        Raises:
            TamperedError: the value belongs to another identity or was changed, or its key was deleted.
        """
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise TamperedError(f"there is no key {sealed.key_id!r}")
        try:
            return key.decrypt(sealed.nonce, sealed.data, _bound(sealed.key_id, identity))
        except (InvalidTag, ValueError):
            raise TamperedError(f"the ciphertext is not that of {identity!r}, or was changed") from None

    def _save(self, raw: dict[str, bytes], current: str) -> None:
        if self.path is not None:
            keys = {name: base64.b64encode(key).decode() for name, key in raw.items()}
            text = json.dumps({"current": current, "keys": keys}, indent=2) + "\n"
            atomic_write(self.path, text.encode(), 0o600)
            status = self.path.stat()
            self._stamp = (status.st_ino, status.st_mtime_ns)
        self._raw, self.current = raw, current
        self._keys = {name: AESGCM(key) for name, key in raw.items()}


def _id(key: bytes) -> str:
    return hashlib.sha256(b"firstbyte key id" + key).hexdigest()[:16]


def _bound(key_id: str, identity: str) -> bytes:
    """Return the associated data; unambiguous because neither a key id nor an identity contains a zero byte."""
    return b"\0".join((_PURPOSE, key_id.encode(), identity.encode()))
