"""Letters that only their recipient can read: HPKE in base mode (RFC 9180), with X25519, HKDF-SHA256 and AES-128-GCM.

Sans-IO.  Base mode proves nothing about the sender: whoever knows the public key can write.  Each letter has its own
ephemeral key, but the recipient's key is long-lived: whoever obtains it later can read every letter ever sent to it.
"""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
#: Bytes of a public key; a letter begins with an ephemeral one.
KEY = 32
_PURPOSE = b"firstbyte letter v1"


class SealError(Exception):
    """A letter cannot be opened, or a public key is not the expected one."""


def fingerprint(public: bytes) -> str:
    """Return a digest of a public key for people to compare: 128 bits in groups of four hexadecimal digits."""
    digest = hashlib.sha256(b"firstbyte mailbox key" + public).hexdigest()[:32]
    return " ".join(digest[at : at + 4] for at in range(0, 32, 4))


def trusted(public: bytes, expected: str) -> X25519PublicKey:
    """Return the public key if it has the fingerprint that the recipient told the sender in another way.

    Raises:
        SealError: it has another, so that whoever published it could read the letter.
    """
    if len(public) != KEY:
        raise SealError(f"expected a public key of {KEY} bytes, got {len(public)}")
    if fingerprint(public) != " ".join(expected.split()).lower():
        raise SealError(f"expected a key with the fingerprint {expected}, the server has {fingerprint(public)}")
    return X25519PublicKey.from_public_bytes(public)


def seal(text: bytes, recipient: X25519PublicKey, mailbox: str, letter: str) -> bytes:
    """Encrypt *text* for *recipient*, bound to the names of the mailbox and of the letter."""
    return SUITE.encrypt(text, recipient, info=_bound(mailbox, letter))


def open_(sealed: bytes, private: X25519PrivateKey, mailbox: str, letter: str) -> bytes:
    """Decrypt a letter.

    Raises:
        SealError: it was changed, or sealed for another key, mailbox or letter.
    """
    try:
        return SUITE.decrypt(sealed, private, info=_bound(mailbox, letter))
    except (InvalidTag, ValueError):
        raise SealError(f"the letter {letter!r} cannot be opened: changed, or sealed for another") from None


def _bound(mailbox: str, letter: str) -> bytes:
    return b"\0".join((_PURPOSE, mailbox.encode(), letter.encode()))
