"""Certificates and servers on loopback, frames written out by hand."""

import ipaddress
import struct

from tests.edge.conftest import bench
from tests.peers import papers
from wan.pcapng import Frame
from waterfall.headers import internet_checksum

__all__ = ["CLIENT", "SERVER", "bench", "frame", "papers", "segment"]

CLIENT, SERVER = ("198.19.1.10", 40_000), ("198.19.20.10", 443)
MS = 1_000_000
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}
MACS = {CLIENT[0]: "02:00:c6:13:01:0a", SERVER[0]: "02:00:c6:13:14:0a", "wan": "02:00:c6:13:00:fe"}


def segment(
    source: tuple[str, int],
    target: tuple[str, int],
    flags: str,
    seq: int,
    ack: int = 0,
    payload: bytes = b"",
    *,
    options: bytes = b"",
    window: int = 64_240,
    ttl: int = 64,
    identification: int = 7,
) -> bytes:
    """Return a frame without its Ethernet header: IPv4 and TCP, checksums right."""
    addresses = b"".join(ipaddress.IPv4Address(each[0]).packed for each in (source, target))
    offset = (20 + len(options)) // 4
    word = offset << 12 | sum(FLAGS[flag] for flag in flags)
    head = struct.pack("!HHIIHHHH", source[1], target[1], seq, ack, word, window, 0, 0) + options
    total = internet_checksum(addresses + struct.pack("!HH", 6, len(head + payload)) + head + payload)
    tcp = head[:16] + struct.pack("!H", total) + head[18:] + payload
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), identification, 0x4000, ttl, 6, 0) + addresses
    return ip[:10] + struct.pack("!H", internet_checksum(ip)) + ip[12:] + tcp


def frame(at_ms: float, outbound: bool, packet: bytes) -> Frame:
    """Put *packet* into Ethernet, as it enters the network or leaves it."""
    source, target = (str(ipaddress.IPv4Address(packet[at : at + 4])) for at in (12, 16))
    ends = (MACS["wan"], MACS[target]) if outbound else (MACS[source], MACS["wan"])
    header = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in reversed(ends)) + b"\x08\x00"
    return Frame(round(at_ms * MS), outbound, header + packet)
