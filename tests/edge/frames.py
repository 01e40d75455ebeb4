"""Raw HTTP/2 for tests: functions that encode frames, and a client that sends raw bytes and records the responses.

Unlike a client library, this module can also produce frames that RFC 9113 forbids.
"""

import asyncio
import contextlib
import struct
from collections.abc import Iterable
from typing import Any

from h2.errors import ErrorCodes
from hpack import Decoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.edge.conftest import Bench

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Frame types and flags (RFC 9113 sections 6.1 to 6.10).
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITISED = 0x1, 0x1, 0x4, 0x8, 0x20

GET = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "www.example.com")]
POST = [(":method", "POST"), *GET[1:]]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Return one encoded frame, without validation; *length* overrides the length in the frame header."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def block(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return *fields* as a field block that adds nothing to the dynamic table (RFC 7541)."""
    lines = b""
    for name, value in fields:
        for text in (name, value):
            octets = text.encode("latin-1")
            size = bytes([len(octets)]) if len(octets) < 127 else bytes([127]) + _rest(len(octets) - 127)
            lines += (b"\x00" if text is name else b"") + size + octets
    return lines


def _rest(value: int) -> bytes:
    """Return the bytes after the prefix of an integer that does not fit into the prefix (RFC 7541 section 5.1)."""
    octets = bytearray()
    while value >= 128:
        octets.append(value % 128 | 128)
        value //= 128
    return bytes([*octets, value])


def headers(fields: Iterable[tuple[str, str]] = GET, stream: int = 1, flags: int = END_STREAM | END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, block(fields))


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


class Wire:
    """HTTP/2 connection to an edge that sends raw bytes, and records received frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self._decoder = reader, writer, Decoder()
        self._buffer = b""
        self.frames: list[Frame] = []
        #: Response status by stream number.
        self.statuses: dict[int, str] = {}
        #: Error code by stream number, for streams that the edge has reset.
        self.resets: dict[int, ErrorCodes] = {}
        #: Number of response body bytes by stream number.
        self.bodies: dict[int, int] = {}
        #: Error code of the GOAWAY frame; None if none was received.
        self.goaway: ErrorCodes | None = None
        #: Payloads of PING acknowledgements.
        self.pongs: list[bytes] = []
        self.settings_acknowledged = 0
        self.closed = False
        #: Whether each DATA frame is answered with WINDOW_UPDATE for its stream and for the connection.
        self.acknowledge = False

    @classmethod
    async def connect(cls, bench: Bench, port: int) -> "Wire":
        context = bench.papers.client()
        context.set_alpn_protocols(["h2"])
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="www.example.com"))

    @property
    def port(self) -> int:
        """Port of the edge."""
        return int(self._writer.get_extra_info("peername")[1])

    def send(self, *parts: bytes) -> None:
        self._writer.write(b"".join(parts))

    async def read(self, until: Any, timeout: float = 5.0) -> None:
        """Read frames until *until* returns true or the edge closes the connection."""
        async with asyncio.timeout(timeout):
            while not until() and not self.closed:
                try:
                    data = await self._reader.read(65536)
                except ConnectionError:
                    data = b""
                self.closed = not data
                self._buffer += data
                while (read := self._next()) is not None:
                    self.frames.append(read)
                    self._note(read)

    async def alive(self) -> bool:
        """Return whether the edge still answers a PING."""
        before = len(self.pongs)
        self.send(frame(PING, 0, 0, b"whatever"))
        await self.read(lambda: len(self.pongs) > before)
        return len(self.pongs) > before

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _next(self) -> Frame | None:
        if len(self._buffer) < 9:
            return None
        found, length = Frame.parse_frame_header(memoryview(self._buffer[:9]))
        if len(self._buffer) < 9 + length:
            return None
        found.parse_body(memoryview(self._buffer[9 : 9 + length]))
        self._buffer = self._buffer[9 + length :]
        return found

    def _note(self, read: Frame) -> None:
        match read:
            case HeadersFrame():
                fields = dict(self._decoder.decode(read.data, raw=True))
                self.statuses[read.stream_id] = fields[b":status"].decode()
            case DataFrame():
                self.bodies[read.stream_id] = self.bodies.get(read.stream_id, 0) + len(read.data)
                if self.acknowledge and read.data:
                    room = struct.pack(">I", len(read.data))
                    self.send(frame(WINDOW_UPDATE, 0, read.stream_id, room), frame(WINDOW_UPDATE, 0, 0, room))
            case RstStreamFrame():
                self.resets[read.stream_id] = ErrorCodes(read.error_code)
            case GoAwayFrame():
                self.goaway = ErrorCodes(read.error_code)
            case PingFrame() if "ACK" in read.flags:
                self.pongs.append(read.opaque_data)
            case SettingsFrame():
                self.settings_acknowledged += "ACK" in read.flags
