"""Encodes and splits DER (X.690), only as far as the CA needs it to fill in prepared structures."""

import datetime as dt
import functools
from collections.abc import Iterator

#: Tags (X.690 section 8).
INTEGER, BIT_STRING, OCTET_STRING, ENUMERATED, UTF8_STRING = b"\x02", b"\x03", b"\x04", b"\x0a", b"\x0c"
SEQUENCE, SET, UTC_TIME, GENERALIZED_TIME = b"\x30", b"\x31", b"\x17", b"\x18"
#: Length fields of contents shorter than 128 bytes, the common case.
_SHORT = [bytes((size,)) for size in range(0x80)]
_UTC = "%y%m%d%H%M%SZ"


def tlv(tag: bytes, content: bytes) -> bytes:
    """Return the DER element with this *tag* and *content*."""
    size = len(content)
    if size < 0x80:
        return tag + _SHORT[size] + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return tag + bytes((0x80 | len(length),)) + length + content


def split(data: bytes) -> Iterator[bytes]:
    """Yield the elements that are concatenated in *data*, each with its tag and length; *data* must be valid DER."""
    at = 0
    while at < len(data):
        begin, size = _content(data, at)
        yield data[at : begin + size]
        at = begin + size


def content(element: bytes) -> bytes:
    """Return the content of one *element*, without its tag and length."""
    return element[_content(element, 0)[0] :]


def integer(value: int) -> bytes:
    """Encode a non-negative integer."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1))


@functools.lru_cache(maxsize=1024)  # leaves issued in the same second have the same times
def time(at: int) -> bytes:
    """Encode *at* (seconds since the epoch) as RFC 5280 section 4.1.2.5 requires: UTCTime until 2049."""
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    if moment.year < 2050:
        return tlv(UTC_TIME, moment.strftime(_UTC).encode())
    return tlv(GENERALIZED_TIME, moment.strftime(f"%Y{_UTC[2:]}").encode())


def _content(data: bytes, at: int) -> tuple[int, int]:
    """Return the position and the size of the content of the element at *at*."""
    size = data[at + 1]
    if size < 0x80:
        return at + 2, size
    begin = at + 2 + (size & 0x7F)
    return begin, int.from_bytes(data[at + 2 : begin])
