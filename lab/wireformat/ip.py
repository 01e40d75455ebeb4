"""Ethernet II, IPv4 (RFC 791), TCP (RFC 9293 section 3.1) and UDP (RFC 768) headers, and the Internet checksum.

Sans-IO. For any input, decoding either returns a packet or raises `HeaderError`.
"""

import socket
import struct
from dataclasses import dataclass
from functools import lru_cache

IPV4, TCP, UDP = 0x0800, 6, 17
#: TCP flag names, from the lowest bit up (RFC 9293 section 3.1; AE: RFC 9768).
FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE")
#: TCP option kinds (RFC 9293 section 3.2, RFC 7323, RFC 2018).
END, NOP, MSS, WINDOW_SCALE, SACK_PERMITTED, SACK, TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8
_IPV4 = struct.Struct("!BBHHHBBH4s4s").unpack_from
_TCP = struct.Struct("!HHIIHH").unpack_from
_UDP = struct.Struct("!HHH").unpack_from


class HeaderError(ValueError):
    """The data is not IPv4, or its header is truncated or inconsistent."""


@dataclass(frozen=True, slots=True)
class Ipv4:
    """Fields of an IPv4 header."""

    source: str
    destination: str
    ttl: int
    protocol: int
    #: Length of header and payload in bytes.
    total_length: int
    header_length: int
    identification: int
    dont_fragment: bool
    more_fragments: bool
    #: Offset of this fragment in the datagram, in bytes.
    fragment_offset: int


@dataclass(frozen=True, slots=True)
class Tcp:
    """Fields of a TCP header."""

    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: frozenset[str]
    #: Window field as sent, without scaling.
    window: int
    header_length: int
    raw_options: bytes

    @property
    def options(self) -> tuple[tuple[int, bytes], ...]:
        """Options as (kind, data) in header order; parsing stops at a truncated option."""
        data = self.raw_options
        found, at = [], 0
        while at < len(data) and data[at] != END:
            if data[at] == NOP:
                at += 1
                continue
            size = data[at + 1] if at + 1 < len(data) else 0
            if size < 2 or at + size > len(data):
                found.append((data[at], data[at + 1 :]))
                break
            found.append((data[at], data[at + 2 : at + size]))
            at += size
        return tuple(found)

    def option(self, kind: int) -> bytes | None:
        """Return the data of the first option of *kind*, or None if there is none."""
        return next((data for found, data in self.options if found == kind), None)


@dataclass(frozen=True, slots=True)
class Udp:
    """Fields of a UDP header."""

    source_port: int
    destination_port: int
    length: int


@dataclass(frozen=True, slots=True)
class Packet:
    """Decoded IPv4 packet."""

    #: Bytes of the packet, without trailing bytes such as Ethernet padding.
    data: bytes
    ip: Ipv4
    #: TCP or UDP header; None for other protocols, for fragments after the first, and for truncated or invalid headers.
    transport: Tcp | Udp | None
    #: Offset in `data` of the transport payload; without a transport header, offset of the IPv4 payload.
    payload_start: int

    @property
    def payload(self) -> bytes:
        """Bytes after the decoded headers."""
        return self.data[self.payload_start :]

    @property
    def tcp(self) -> Tcp | None:
        """TCP header; None if the packet has none."""
        return self.transport if isinstance(self.transport, Tcp) else None

    @property
    def udp(self) -> Udp | None:
        """UDP header; None if the packet has none."""
        return self.transport if isinstance(self.transport, Udp) else None

    @property
    def source(self) -> tuple[str, int]:
        """Source address and port; the port is 0 without a transport header."""
        return self.ip.source, self.transport.source_port if self.transport is not None else 0

    @property
    def destination(self) -> tuple[str, int]:
        """Destination address and port; the port is 0 without a transport header."""
        return self.ip.destination, self.transport.destination_port if self.transport is not None else 0

    @property
    def header_checksum_ok(self) -> bool:
        """Whether the IPv4 header checksum is valid."""
        return checksum(self.data[: self.ip.header_length]) == 0

    @property
    def transport_checksum_ok(self) -> bool:
        """Whether the TCP or UDP checksum is valid; a sender may leave its calculation to the network device."""
        rest = self.data[self.ip.header_length :]
        return checksum(self.data[12:20] + struct.pack("!HH", self.ip.protocol, len(rest)) + rest) == 0


@dataclass(frozen=True, slots=True)
class EthernetFrame:
    """Ethernet II frame that contains an IPv4 packet."""

    destination: str
    source: str
    packet: Packet


def decode(data: bytes) -> Packet:
    """Decode an IPv4 packet.

    Raises:
        HeaderError: *data* is not IPv4, is truncated, or has inconsistent lengths.
    """
    if len(data) < 20:
        raise HeaderError(f"expected an IPv4 header of 20 bytes, got {len(data)}")
    first, _, total, identification, fragment, ttl, protocol, _, source, destination = _IPV4(data)
    length = (first & 15) * 4
    if first >> 4 != 4 or length < 20 or not length <= total <= len(data):
        raise HeaderError(f"expected IPv4 of {total} bytes, got version {first >> 4}, {length} of {len(data)} bytes")
    ip = Ipv4(
        socket.inet_ntoa(source), socket.inet_ntoa(destination), ttl, protocol, total, length, identification,
        bool(fragment & 0x4000), bool(fragment & 0x2000), (fragment & 0x1FFF) * 8,
    )  # fmt: skip
    data = data[:total]
    transport: Tcp | Udp | None = None
    start = length
    if ip.fragment_offset:
        return Packet(data, ip, None, start)
    if protocol == UDP and total >= start + 8:
        transport = Udp(*_UDP(data, start))
        start += 8
    elif protocol == TCP and total >= start + 20:
        source_port, destination_port, seq, ack, word, window = _TCP(data, start)
        size = (word >> 12) * 4
        if 20 <= size <= total - start:
            options = data[start + 20 : start + size]
            transport = Tcp(source_port, destination_port, seq, ack, _flags(word & 0x1FF), window, size, options)
            start += size
    return Packet(data, ip, transport, start)


def decode_frame(frame: bytes) -> EthernetFrame:
    """Decode an Ethernet frame.

    Raises:
        HeaderError: *frame* does not contain IPv4, is truncated, or has inconsistent lengths.
    """
    if len(frame) < 14:
        raise HeaderError(f"expected an Ethernet header of 14 bytes, got {len(frame)}")
    ethertype = int.from_bytes(frame[12:14], "big")
    if ethertype != IPV4:
        raise HeaderError(f"expected IPv4 (EtherType 0x0800), got 0x{ethertype:04x}")
    return EthernetFrame(frame[:6].hex(":"), frame[6:12].hex(":"), decode(frame[14:]))


def describe(kind: int, data: bytes) -> str:
    """Return a short description of a TCP option in tcpdump's format."""
    number = int.from_bytes(data, "big")
    if kind == MSS and len(data) == 2:
        return f"mss {number}"
    if kind == WINDOW_SCALE and len(data) == 1:
        return f"wscale {number}"
    if kind == SACK_PERMITTED and not data:
        return "sackOK"
    if kind == TIMESTAMPS and len(data) == 8:
        return f"ts {number >> 32} {number & 0xFFFFFFFF}"
    if kind == SACK and data and len(data) % 8 == 0:
        edges = struct.unpack(f"!{len(data) // 4}I", data)
        return "sack " + " ".join(f"{left}-{right}" for left, right in zip(edges[::2], edges[1::2], strict=True))
    return f"option {kind}"


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071); it is 0 for data that includes a valid checksum."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@lru_cache(maxsize=512)
def _flags(bits: int) -> frozenset[str]:
    return frozenset(name for bit, name in enumerate(FLAGS) if bits >> bit & 1)
