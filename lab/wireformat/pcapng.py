"""Reader and writer for Ethernet frames in pcapng files (draft-ietf-opsawg-pcapng). Sans-IO.

Unlike pcap, pcapng stores packet directions and drop counts. Files contain one section and one interface; the reader
skips blocks of unknown types.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LINKTYPE_ETHERNET = 1
#: Block types: section header, interface description, enhanced packet and interface statistics
#: (draft-ietf-opsawg-pcapng sections 4.1, 4.2, 4.3 and 4.6).
SHB, IDB, EPB, ISB = 0x0A0D0D0A, 1, 6, 5
MAGIC = 0x1A2B3C4D
#: Option codes: if_name, if_tsresol, epb_flags and isb_ifdrop.
IF_NAME, IF_TSRESOL, EPB_FLAGS, ISB_IFDROP = 2, 9, 2, 5
#: Direction values in bits 0 and 1 of epb_flags (draft-ietf-opsawg-pcapng section 4.3.1).
INBOUND, OUTBOUND = 1, 2
NANOSECONDS = 9


class PcapngError(ValueError):
    """The data is not a pcapng file of the supported kind."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Ethernet frame captured at the router's interface."""

    #: Capture time in nanoseconds since the epoch.
    time_ns: int
    #: True if the frame was sent to a host, False if it came from a host.
    outbound: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Recording:
    """Captured frames, and the number of dropped frames."""

    frames: tuple[Frame, ...] = ()
    dropped: int = 0


def write(recording: Recording, device: str) -> bytes:
    """Return *recording* as pcapng data; *device* is the interface name."""
    described = _option(IF_NAME, device.encode()) + _option(IF_TSRESOL, bytes([NANOSECONDS])) + _option(0, b"")
    blocks = [
        _block(SHB, struct.pack("<IHHq", MAGIC, 1, 0, -1)),
        _block(IDB, struct.pack("<HHI", LINKTYPE_ETHERNET, 0, 0) + described),
    ]
    for frame in recording.frames:
        high, low = divmod(frame.time_ns, 1 << 32)
        size = len(frame.data)
        flags = _option(EPB_FLAGS, struct.pack("<I", OUTBOUND if frame.outbound else INBOUND)) + _option(0, b"")
        head = struct.pack("<IIIII", 0, high, low, size, size)
        blocks.append(_block(EPB, head + frame.data + b"\0" * (-size % 4) + flags))
    drops = _option(ISB_IFDROP, struct.pack("<Q", recording.dropped)) + _option(0, b"")
    blocks.append(_block(ISB, struct.pack("<III", 0, 0, 0) + drops))
    return b"".join(blocks)


def read(data: bytes) -> Recording:
    """Parse pcapng data.

    Raises:
        PcapngError: *data* is truncated or malformed, or not little-endian, not Ethernet, or not in nanoseconds.
    """
    frames, dropped, first = [], 0, True
    try:
        for kind, body in _blocks(data):
            if first and (kind != SHB or struct.unpack_from("<I", body)[0] != MAGIC):
                raise PcapngError("expected a little-endian pcapng section")
            first = False
            if kind == IDB:
                linktype = struct.unpack_from("<H", body)[0]
                resolution = dict(_options(body[8:])).get(IF_TSRESOL)
                if linktype != LINKTYPE_ETHERNET or resolution != bytes([NANOSECONDS]):
                    raise PcapngError(f"expected Ethernet and nanoseconds, got link type {linktype}, {resolution!r}")
            elif kind == EPB:
                _, high, low, size, _ = struct.unpack_from("<IIIII", body)
                end = 20 + size
                if end > len(body):
                    raise PcapngError(f"expected {size} bytes of a frame, got {len(body) - 20}")
                flags = dict(_options(body[end + -size % 4 :])).get(EPB_FLAGS, b"\0\0\0\0")
                outbound = struct.unpack("<I", flags)[0] & 3 == OUTBOUND
                frames.append(Frame((high << 32) + low, outbound, body[20:end]))
            elif kind == ISB:
                dropped += struct.unpack("<Q", dict(_options(body[12:])).get(ISB_IFDROP, bytes(8)))[0]
    except struct.error as error:
        raise PcapngError(f"a block is too short: {error}") from None
    if first:
        raise PcapngError("expected a pcapng section, got nothing")
    return Recording(tuple(frames), dropped)


def _block(kind: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    size = len(body) + 12
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def _blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        if size < 12 or size % 4 or at + size > len(data) or data[at + size - 4 : at + size] != struct.pack("<I", size):
            raise PcapngError(f"expected a whole block at {at}, got {data[at : at + 12].hex()}")
        yield kind, data[at + 8 : at + size - 4]
        at += size


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def _options(data: bytes) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        code, size = struct.unpack_from("<HH", data, at)
        if code == 0:
            return
        yield code, data[at + 4 : at + 4 + size]
        at += 4 + size + -size % 4
