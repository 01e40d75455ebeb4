"""Write pcap files with nanoseconds (draft-ietf-opsawg-pcap).  `pcapng` also has directions and drops.  Sans-IO."""

import struct

#: Packets begin with their Ethernet header, or with their IPv4 header.
LINKTYPE_ETHERNET, LINKTYPE_RAW = 1, 101
#: Bytes of each packet that a file may hold.
SNAPSHOT_LENGTH = 262_144
#: Magic number for nanoseconds.
MAGIC = 0xA1B23C4D
_RECORD = struct.Struct("=IIII").pack


def file_header(linktype: int) -> bytes:
    """Return the header of a file: version 2.4, two reserved fields, snapshot length, link type."""
    return struct.pack("=IHHiIII", MAGIC, 2, 4, 0, 0, SNAPSHOT_LENGTH, linktype)


def record(time_ns: int, data: bytes) -> bytes:
    """Return one packet with its header; *time_ns* is nanoseconds since the epoch."""
    return _RECORD(*divmod(time_ns, 1_000_000_000), len(data), len(data)) + data
