"""Headers of one frame: Ethernet II, IPv4 (RFC 791), TCP (RFC 9293 section 3.1), UDP (RFC 768); one dataclass each.

Sans-IO.  Whatever the octets are, `decode` returns a packet or raises `HeaderError`.
"""

import ipaddress
import struct
from dataclasses import dataclass

IPV4, TCP, UDP = 0x0800, 6, 17
#: Flags of octets 12 and 13 of a TCP header, lowest bit first (RFC 9293 section 3.1; AE: RFC 9768).
FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE")
#: Options by kind (RFC 9293 section 3.2, RFC 7323, RFC 2018).
END, NOP, MSS, WINDOW_SCALE, SACK_PERMITTED, SACK, TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8


class HeaderError(ValueError):
    """The frame ends before its headers do, or they contradict themselves."""


@dataclass(frozen=True, slots=True)
class Ethernet:
    """14 octets in front of everything."""

    destination: str
    source: str
    ethertype: int


@dataclass(frozen=True, slots=True)
class Ipv4:
    """The network's header."""

    source: str
    destination: str
    ttl: int
    protocol: int
    #: Octets of header and payload.
    total_length: int
    header_length: int
    identification: int
    dont_fragment: bool
    more_fragments: bool
    #: Octets before this fragment.
    fragment_offset: int
    tos: int
    checksum_ok: bool


@dataclass(frozen=True, slots=True)
class Tcp:
    """The connection's header."""

    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: frozenset[str]
    #: As sent: not scaled.
    window: int
    header_length: int
    #: (kind, data) in the order of the header; an option that is cut ends the list.
    options: tuple[tuple[int, bytes], ...]
    #: Whether the checksum holds; a sender that leaves it to its device sends a partial one.
    checksum_ok: bool

    def option(self, kind: int) -> bytes | None:
        """Return the data of the first option of *kind*."""
        return next((data for found, data in self.options if found == kind), None)


@dataclass(frozen=True, slots=True)
class Udp:
    """A datagram's header."""

    source_port: int
    destination_port: int
    length: int


@dataclass(frozen=True, slots=True)
class Packet:
    """One frame, taken apart."""

    ethernet: Ethernet
    ip: Ipv4
    transport: Tcp | Udp | None
    payload: bytes

    @property
    def tcp(self) -> Tcp | None:
        """The TCP header, if it is a segment."""
        return self.transport if isinstance(self.transport, Tcp) else None

    @property
    def udp(self) -> Udp | None:
        """The UDP header, if it is a datagram."""
        return self.transport if isinstance(self.transport, Udp) else None


def decode(frame: bytes) -> Packet:
    """Take a frame apart.

    Raises:
        HeaderError: it is not IPv4 in Ethernet II, cut, or its lengths contradict each other.
    """
    if len(frame) < 14:
        raise HeaderError(f"expected an Ethernet header of 14 octets, got {len(frame)}")
    ethernet = Ethernet(_mac(frame[:6]), _mac(frame[6:12]), int.from_bytes(frame[12:14], "big"))
    if ethernet.ethertype != IPV4:
        raise HeaderError(f"expected IPv4 (EtherType 0x0800), got 0x{ethernet.ethertype:04x}")
    ip = _ipv4(frame[14:])
    rest = frame[14 + ip.header_length : 14 + ip.total_length]
    if ip.fragment_offset or ip.protocol not in {TCP, UDP}:
        return Packet(ethernet, ip, None, rest)
    if ip.protocol == TCP:
        tcp = _tcp(ip, rest)
        return Packet(ethernet, ip, tcp, rest[tcp.header_length :])
    if len(rest) < 8:
        raise HeaderError(f"expected a UDP header of 8 octets, got {len(rest)}")
    return Packet(ethernet, ip, Udp(*struct.unpack_from("!HHH", rest)), rest[8:])


def describe(kind: int, data: bytes) -> str:
    """Return a TCP option in a few words."""
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


def internet_checksum(data: bytes) -> int:
    """Return the one's complement of the one's complement sum of 16-bit words (RFC 1071); 0 where it holds."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ipv4(data: bytes) -> Ipv4:
    if len(data) < 20:
        raise HeaderError(f"expected an IPv4 header of 20 octets, got {len(data)}")
    first, tos, total, identification, fragment, ttl, protocol, _, source, destination = struct.unpack_from(
        "!BBHHHBBH4s4s", data
    )
    length = (first & 15) * 4
    if first >> 4 != 4 or length < 20 or not length <= total <= len(data):
        raise HeaderError(f"expected IPv4 of {total} octets, got version {first >> 4}, {length} of {len(data)} octets")
    return Ipv4(
        str(ipaddress.IPv4Address(source)),
        str(ipaddress.IPv4Address(destination)),
        ttl,
        protocol,
        total,
        length,
        identification,
        bool(fragment & 0x4000),
        bool(fragment & 0x2000),
        (fragment & 0x1FFF) * 8,
        tos,
        internet_checksum(data[:length]) == 0,
    )


def _tcp(ip: Ipv4, data: bytes) -> Tcp:
    if len(data) < 20:
        raise HeaderError(f"expected a TCP header of 20 octets, got {len(data)}")
    source, destination, seq, ack, word, window = struct.unpack_from("!HHIIHH", data)
    length = (word >> 12) * 4
    if not 20 <= length <= len(data):
        raise HeaderError(f"expected a TCP header of 20 to {len(data)} octets, got {length}")
    flags = frozenset(name for bit, name in enumerate(FLAGS) if word >> bit & 1)
    addresses = ipaddress.IPv4Address(ip.source).packed + ipaddress.IPv4Address(ip.destination).packed
    pseudo = addresses + struct.pack("!HH", TCP, len(data))
    options = _options(data[20:length])
    return Tcp(source, destination, seq, ack, flags, window, length, options, internet_checksum(pseudo + data) == 0)


def _options(data: bytes) -> tuple[tuple[int, bytes], ...]:
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


def _mac(octets: bytes) -> str:
    return octets.hex(":")
