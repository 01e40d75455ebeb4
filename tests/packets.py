"""IPv4 packets for tests, with checksums (RFC 1071) computed independently of the code under test."""

import struct
from ipaddress import IPv4Address

CLIENT, SERVER = "198.19.1.10", "198.19.20.10"


def checksum(data: bytes) -> int:
    """Return the Internet checksum of *data*, which is 0 if *data* includes a valid checksum."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    protocol: int,
    body: bytes,
    source: str = CLIENT,
    target: str = SERVER,
    fragment: int = 0x4000,
    *,
    ttl: int = 62,
    identification: int = 7,
) -> bytes:
    """Return an IPv4 packet; *fragment* is the 16-bit field with the flags and the fragment offset."""
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), identification, fragment, ttl, protocol, 0) + addresses
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + body


def tcp(
    data: bytes = b"",
    flags: int = 0x18,
    *,
    seq: int = 1,
    ack: int = 1,
    source: str = CLIENT,
    target: str = SERVER,
    ports: tuple[int, int] = (40_000, 443),
    options: bytes = b"",
    window: int = 64_000,
    ttl: int = 62,
    identification: int = 7,
) -> bytes:
    """Return an IPv4 packet with a TCP segment; the default *flags* are PSH and ACK."""
    header = struct.pack("!HHIIBBHHH", *ports, seq, ack, (5 + len(options) // 4) << 4, flags, window, 0, 0) + options
    segment = header + data
    body = _summed(6, segment, 16, source, target)
    return ipv4(6, body, source, target, ttl=ttl, identification=identification)


def udp(
    data: bytes = b"", source: str = CLIENT, target: str = SERVER, *, ports: tuple[int, int] = (40_000, 53)
) -> bytes:
    """Return an IPv4 packet with a UDP datagram."""
    datagram = struct.pack("!HHHH", *ports, 8 + len(data), 0) + data
    return ipv4(17, _summed(17, datagram, 6, source, target), source, target)


def is_valid(packet: bytes) -> bool:
    """Return whether the IP header checksum and the transport checksum are both valid."""
    start = (packet[0] & 15) * 4
    return checksum(packet[:start]) == 0 and checksum(_pseudo(packet) + packet[start:]) == 0


def _pseudo(packet: bytes) -> bytes:
    return packet[12:20] + bytes((0, packet[9])) + (len(packet) - 20).to_bytes(2, "big")


def _summed(protocol: int, body: bytes, at: int, source: str, target: str) -> bytes:
    return (
        body[:at] + checksum(_pseudo(ipv4(protocol, body, source, target)) + body).to_bytes(2, "big") + body[at + 2 :]
    )
