"""PROXY protocol headers (versions 1 and 2), with which a load balancer reports the client's address to the edge.

Specification: "The PROXY protocol, versions 1 & 2" (HAProxy, 2020).  No I/O.  A receiver must not guess whether a
connection begins with a header, so the caller decides by the peer's address.  For additional fields (TLVs), the
lengths and the CRC32C checksum are verified; all other values are ignored.
"""

import re
import struct
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
#: Maximum length of a header in bytes. Version 1: limit of the specification. Version 2: limit of this parser; TLVs
#: from HAProxy need a few hundred bytes without certificates.
MAX_V1, MAX_V2 = 107, 4096
_V1 = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,45}) ([0-9A-Fa-f:.]{2,45}) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)
_V1_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [\x20-\x7e]*)?")
#: Values of the address family and protocol byte in version 2; UDP and Unix sockets are not supported.
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21
#: Length of the address block in bytes, keyed by address family and protocol.
_ADDRESSES = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36}
_LOCAL, _PROXY = 0x20, 0x21
#: Type of the field with the CRC32C checksum of the header (RFC 3720 appendix B.4).
_CRC32C = 0x03
#: Generator polynomial of CRC32C, with the bits in reversed order.
_POLYNOMIAL = 0x82F63B78


class ProxyHeaderError(ValueError):
    """The data is not a valid PROXY header; the connection must be closed."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Parsed PROXY header."""

    #: The client's address; empty if the load balancer opened the connection on its own behalf, as for a health check.
    address: str
    #: The client's port; 0 if the address is empty.
    port: int
    #: Length of the header in bytes; data from the client follows.
    length: int


def read_header(data: bytes) -> ProxyHeader | None:
    """Parse the header at the start of *data*; return None if more bytes are needed.

    Raises:
        ProxyHeaderError: *data* does not begin with a valid header.
    """
    if data.startswith(SIGNATURE[: len(data)]):
        return _read_v2(data)
    if data.startswith(b"PROXY "[: len(data)]):
        return _read_v1(data)
    raise ProxyHeaderError(f"expected a PROXY header, got {data[:16]!r}")


def _read_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1 or b"\n" in data:
            raise ProxyHeaderError(f"expected a line of at most {MAX_V1} bytes, ended by CRLF")
        return None
    line = data[:end]
    if _V1_UNKNOWN.fullmatch(line):
        return ProxyHeader("", 0, end + 2)
    match = _V1.fullmatch(line)
    if match is None or max(int(match[4]), int(match[5])) > 65535:
        raise ProxyHeaderError(f"expected PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT, got {line!r}")
    kind = IPv4Address if match[1] == b"TCP4" else IPv6Address
    try:
        source, _ = kind(match[2].decode()), kind(match[3].decode())
    except AddressValueError as error:
        raise ProxyHeaderError(f"expected two addresses of the family {match[1].decode()}: {error}") from None
    return ProxyHeader(str(source), int(match[4]), end + 2)


def _read_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < 16:
        return None
    command, family, length = struct.unpack_from("!BBH", data, 12)
    if command not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError(f"expected version 2 with the command LOCAL or PROXY, got 0x{command:02x}")
    if 16 + length > MAX_V2:
        raise ProxyHeaderError(f"expected a header of at most {MAX_V2} bytes, got {16 + length}")
    if command == _PROXY and family not in _ADDRESSES:
        raise ProxyHeaderError(f"expected TCP over IPv4 or IPv6, got family and protocol 0x{family:02x}")
    if len(data) < 16 + length:
        return None
    block = data[16 : 16 + length]
    if command == _LOCAL:  # for LOCAL, the receiver must ignore the family and the addresses
        return ProxyHeader("", 0, 16 + length)
    if len(block) < _ADDRESSES[family]:
        raise ProxyHeaderError(f"expected {_ADDRESSES[family]} bytes of addresses, got {len(block)}")
    _check_fields(data[: 16 + length], 16 + _ADDRESSES[family])
    if family == _UNSPECIFIED:
        return ProxyHeader("", 0, 16 + length)
    size = 4 if family == _TCP4 else 16
    source = IPv4Address(block[:4]) if family == _TCP4 else IPv6Address(block[:16])
    (port,) = struct.unpack_from("!H", block, 2 * size)
    return ProxyHeader(str(source), port, 16 + length)


def _check_fields(header: bytes, at: int) -> None:
    """Raise `ProxyHeaderError` if a field (TLV) from position *at* of *header* is truncated or has a wrong checksum."""
    while at < len(header):
        if at + 3 > len(header):
            raise ProxyHeaderError("expected complete fields (TLVs) after the addresses, got a truncated one")
        start, at = at + 3, at + 3 + int.from_bytes(header[at + 1 : at + 3], "big")
        if at > len(header):
            raise ProxyHeaderError("expected complete fields (TLVs) after the addresses, got one beyond the header")
        if header[start - 3] == _CRC32C:
            expected = crc32c(header[:start] + bytes(at - start) + header[at:])  # computed with a zero checksum field
            if header[start:at] != expected.to_bytes(4, "big"):
                raise ProxyHeaderError(f"expected the CRC32C checksum {expected:08x}, got {header[start:at].hex()}")


def crc32c(data: bytes) -> int:
    """Return the CRC32C checksum of *data*."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _table_entry(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc


_TABLE = tuple(map(_table_entry, range(256)))
