"""Encryption of letters for their recipient: HPKE in base mode (RFC 9180), with X25519, HKDF-SHA256 and AES-128-GCM.

Sans-IO.  Base mode does not authenticate the sender: anyone with the public key can encrypt a letter.  There is no
forward secrecy: each letter has an ephemeral key, but the recipient's long-lived private key decrypts all letters.
"""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
#: Size of a public key in bytes; a letter begins with the sender's ephemeral public key.
KEY = 32
_PURPOSE = b"firstbyte letter v1"


class SealError(Exception):
    """A letter cannot be decrypted, or a public key does not have the expected fingerprint."""


def fingerprint(public: bytes) -> str:
    """Return a public key's fingerprint for comparison by people: 128 bits in groups of four hexadecimal digits."""
    digest = hashlib.sha256(b"firstbyte mailbox key" + public).hexdigest()[:32]
    return " ".join(digest[at : at + 4] for at in range(0, 32, 4))


def trusted(public: bytes, expected: str) -> X25519PublicKey:
    """Return the public key if it has the fingerprint *expected*, which the sender got from the recipient directly.

    Raises:
        SealError: the fingerprint differs, so the key may belong to someone who wants to read the letter.
    """
    if len(public) != KEY:
        raise SealError(f"expected a public key of {KEY} bytes, got {len(public)}")
    if fingerprint(public) != " ".join(expected.split()).lower():
        raise SealError(f"expected a key with the fingerprint {expected}, the server has {fingerprint(public)}")
    return X25519PublicKey.from_public_bytes(public)


def seal(text: bytes, recipient: X25519PublicKey, mailbox: str, letter: str) -> bytes:
    """Encrypt *text* for *recipient*; decryption requires the same *mailbox* and *letter*."""
    return SUITE.encrypt(text, recipient, info=_bound(mailbox, letter))


def open_(sealed: bytes, private: X25519PrivateKey, mailbox: str, letter: str) -> bytes:
    """Decrypt a letter.

    Raises:
        SealError: the letter was changed, or was encrypted for another key, mailbox or letter id.
    """
    try:
        return SUITE.decrypt(sealed, private, info=_bound(mailbox, letter))
    except (InvalidTag, ValueError):
        raise SealError(f"the letter {letter!r} cannot be opened: changed, or sealed for another") from None


def _bound(mailbox: str, letter: str) -> bytes:
    return b"\0".join((_PURPOSE, mailbox.encode(), letter.encode()))
