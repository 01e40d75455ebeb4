"""Parse single words of RDATA in presentation format: numbers, addresses, texts, hexadecimal and base64."""

import base64
import binascii
import calendar
import ipaddress
import re
import socket
import struct
import time
from collections.abc import Mapping, Sequence

from dnsmessage import rdtypes
from dnsmessage.errors import RdataSyntaxError
from dnsmessage.name import shown, unescape

MAX_U32 = 2**32 - 1
_UNITS = {b"s": 1, b"m": 60, b"h": 3600, b"d": 86400, b"w": 604800}
_DURATION = re.compile(rb"(?:[0-9]{1,10}[smhdw])+", re.IGNORECASE)
_B32_BACK = bytes.maketrans(b"0123456789ABCDEFGHIJKLMNOPQRSTUV", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def seconds(word: bytes, what: str = "seconds", maximum: int = MAX_U32) -> int:
    """Parse a duration such as ``3600`` or ``1h30m`` into seconds; raise `RdataSyntaxError` on failure."""
    if word.isdigit() and len(word) <= 10:
        value = int(word)
    elif _DURATION.fullmatch(word):
        value = sum(int(part[:-1]) * _UNITS[part[-1:].lower()] for part in re.findall(rb"[0-9]+[A-Za-z]", word))
    else:
        raise RdataSyntaxError(f"expected {what} as a number, or like 1h30m; got {short(word)!r}")
    if value > maximum:
        raise RdataSyntaxError(f"expected {what} of at most {maximum}, got {short(word)}")
    return value


def short(word: bytes) -> str:
    """Return *word* for an error message, shortened to 60 bytes."""
    return shown(word if len(word) <= 60 else word[:57] + b"...")


def joined(words: Sequence[bytes]) -> str:
    """Return *words*, joined by spaces and shortened to 60 bytes, for an error message."""
    return short(b" ".join(words))


def string_bytes(word: bytes) -> bytes:
    """Return the bytes of a character string, with its escapes decoded."""
    if b"\\" not in word:
        return word
    data, at = bytearray(), 0
    while at < len(word):
        if word[at] == 0x5C:
            byte, at = unescape(word, at)
            data.append(byte)
        else:
            data.append(word[at])
            at += 1
    return bytes(data)


def number(word: bytes, maximum: int) -> int:
    """Return the number in *word*; raise `RdataSyntaxError` if it exceeds *maximum*."""
    if not word.isdigit() or len(word) > 10 or int(word) > maximum:
        raise RdataSyntaxError(f"expected a number from 0 to {maximum}, got {short(word)!r}")
    return int(word)


def coded(word: bytes, size: int, codes: Mapping[bytes, int]) -> bytes:
    """Parse a number or its mnemonic (case-insensitive) into *size* bytes."""
    code = codes.get(word.upper())
    if code is None and not word.isdigit():
        known = ", ".join(each.decode() for each in codes)
        raise RdataSyntaxError(f"expected a number or one of {known}; got {short(word)!r}")
    return (number(word, 256**size - 1) if code is None else code).to_bytes(size, "big")


def ip4(word: bytes) -> bytes:
    """Parse an IPv4 address into four bytes."""
    text = shown(word)
    try:
        if text.count(".") != 3:
            raise ValueError
        return ipaddress.IPv4Address(text).packed if not text.isascii() or text[:1] == "0" else _aton(text)
    except ValueError:
        raise RdataSyntaxError(f"expected an IPv4 address, got {short(word)!r}") from None


def _aton(text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except OSError:
        raise ValueError from None


def ip6(word: bytes) -> bytes:
    """Parse an IPv6 address into 16 bytes."""
    try:
        return socket.inet_pton(socket.AF_INET6, word.decode("ascii"))
    except (OSError, ValueError):
        raise RdataSyntaxError(f"expected an IPv6 address, got {short(word)!r}") from None


def string(word: bytes) -> bytes:
    """Parse a character string; return it with a one-byte length prefix."""
    data = string_bytes(word)
    if len(data) > 255:
        raise RdataSyntaxError(f"expected texts of at most 255 bytes, got one of {len(data)}")
    return bytes([len(data)]) + data


def unhex(words: Sequence[bytes]) -> bytes:
    """Decode hexadecimal *words* into bytes."""
    try:
        return binascii.unhexlify(b"".join(words))
    except ValueError:
        raise RdataSyntaxError(f"expected hexadecimal digits in pairs, got {joined(words)!r}") from None


def unbase64(words: Sequence[bytes]) -> bytes:
    """Decode base64 *words* into bytes."""
    try:
        return base64.b64decode(b"".join(words), validate=True)
    except ValueError:
        raise RdataSyntaxError(f"expected base64, got {joined(words)!r}") from None


def hex8(word: bytes) -> bytes:
    """Decode a hexadecimal word, or ``-`` for no bytes; return the bytes with a one-byte length prefix."""
    wire = b"" if word == b"-" else unhex([word])
    if len(wire) > 255:
        raise RdataSyntaxError(f"expected at most 255 bytes in hexadecimal, got {len(wire)}")
    return bytes([len(wire)]) + wire


def base32(word: bytes) -> bytes:
    """Decode a base32hex word; return the bytes with a one-byte length prefix."""
    try:
        text = word.upper().translate(_B32_BACK)
        wire = base64.b32decode(text + b"=" * (-len(text) % 8))
    except ValueError:
        raise RdataSyntaxError(f"expected base32hex (RFC 4648), got {short(word)!r}") from None
    return bytes([len(wire)]) + wire


def moment(word: bytes) -> bytes:
    """Parse a time, written as YYYYMMDDHHMMSS or in seconds since 1970, into four bytes."""
    try:
        if len(word) == 14:
            return struct.pack("!I", calendar.timegm(time.strptime(word.decode(), "%Y%m%d%H%M%S")) & MAX_U32)
    except ValueError:
        raise RdataSyntaxError(f"expected a time as YYYYMMDDHHMMSS, got {short(word)!r}") from None
    return struct.pack("!I", number(word, MAX_U32))


def bitmap(words: Sequence[bytes]) -> bytes:
    """Return the type bitmap of NSEC for the mnemonics in *words* (RFC 4034 section 4.1.2)."""
    windows: dict[int, bytearray] = {}
    for rdtype in sorted({rdtypes.from_text(shown(word)) for word in words}):
        window = windows.setdefault(rdtype >> 8, bytearray())
        low = rdtype & 0xFF
        window.extend(bytes(low // 8 + 1 - len(window)))
        window[low // 8] |= 0x80 >> low % 8
    return b"".join(bytes([place, len(window)]) + window for place, window in windows.items())


def tag(word: bytes) -> bytes:
    """Parse the property tag of a CAA record; return it with a one-byte length prefix."""
    if not (word.isalnum() and len(word) < 256):
        raise RdataSyntaxError(f"expected a tag of letters and digits (RFC 8659 section 4.1), got {short(word)!r}")
    return bytes([len(word)]) + word.lower()


def eui(word: bytes, size: int) -> bytes:
    """Parse an EUI address of *size* bytes, written as ``00-11-22-…``."""
    if not re.fullmatch(rb"[0-9A-Fa-f]{2}(?:-[0-9A-Fa-f]{2}){%d}" % (size - 1), word):
        raise RdataSyntaxError(f"expected {size} bytes as 00-11-22-…, got {short(word)!r}")
    return bytes.fromhex(word.decode().replace("-", ""))


def locator(word: bytes) -> bytes:
    """Parse a 64-bit locator into eight bytes (RFC 6742)."""
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){3}", word):
        raise RdataSyntaxError(f"expected a 64-bit locator as 2001:db8:1140:1000, got {short(word)!r}")
    return struct.pack("!4H", *(int(part, 16) for part in word.split(b":")))
