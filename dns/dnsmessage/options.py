"""EDNS options (RFC 6891 section 6.1.2): codes, encoding, and the codes of extended errors (RFC 8914)."""

import struct
from enum import IntEnum

#: Option codes: name server identifier (RFC 5001), cookie (RFC 7873), TCP keep-alive (RFC 7828), padding (RFC 7830),
#: extended error (RFC 8914).
NSID, COOKIE, KEEPALIVE, PADDING, EDE = 3, 10, 11, 12, 15
#: Size of a client cookie, and minimum and maximum size of a cookie option with a server cookie, in bytes (RFC 7873
#: section 4).
CLIENT_COOKIE, MIN_COOKIE, MAX_COOKIE = 8, 16, 40
#: Maximum size of the text of an extended error, in bytes, so that the reply fits in a datagram.
MAX_TEXT = 200


class ExtendedError(IntEnum):
    """Codes of extended errors that our servers send (RFC 8914 section 4)."""

    OTHER = 0
    STALE_ANSWER = 3
    CACHED_ERROR = 13
    PROHIBITED = 18
    STALE_NXDOMAIN = 19
    NOT_AUTHORITATIVE = 20
    NOT_SUPPORTED = 21
    NO_REACHABLE_AUTHORITY = 22


def encode_option(code: int, data: bytes) -> bytes:
    """Encode one option."""
    return struct.pack("!HH", code, len(data)) + data


def extended_error(code: ExtendedError, text: str) -> bytes:
    """Encode an extended error option with *text* as its explanation."""
    return encode_option(EDE, struct.pack("!H", code) + text.encode()[:MAX_TEXT])
