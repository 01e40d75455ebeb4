"""Writer and reader for pcap files with nanosecond timestamps (draft-ietf-opsawg-pcap). Sans-IO.

Use `pcapng` for files that also contain packet directions and drop counts.
"""

import struct
from collections.abc import Iterator

#: Link types: packets start with an Ethernet header, or with an IPv4 header.
LINKTYPE_ETHERNET, LINKTYPE_RAW = 1, 101
#: Maximum packet length in a file, in bytes.
SNAPSHOT_LENGTH = 262_144
#: Magic number of pcap files with nanosecond timestamps.
MAGIC = 0xA1B23C4D
_RECORD = struct.Struct("=IIII").pack


def file_header(linktype: int) -> bytes:
    """Return the file header: version 2.4, two reserved fields, snapshot length and link type."""
    return struct.pack("=IHHiIII", MAGIC, 2, 4, 0, 0, SNAPSHOT_LENGTH, linktype)


def record(time_ns: int, data: bytes) -> bytes:
    """Return a packet record; *time_ns* is its timestamp in nanoseconds since the epoch."""
    return _RECORD(*divmod(time_ns, 1_000_000_000), len(data), len(data)) + data


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (nanoseconds since the epoch, packet) from a file that this module wrote; stop at a truncated packet."""
    at, header = 24, struct.Struct("=IIII")
    while at + header.size <= len(data):
        seconds, nanoseconds, size, _ = header.unpack_from(data, at)
        at += header.size
        if at + size > len(data):
            return
        yield seconds * 1_000_000_000 + nanoseconds, data[at : at + size]
        at += size


def packets(data: bytes) -> Iterator[bytes]:
    """Yield the packets of a file that this module wrote; stop at a truncated packet."""
    return (packet for _, packet in records(data))
