"""Checks on what arrives over HTTP/2, before the library h2 or the reader of heads gets it (RFC 9113); sans-IO."""

import re
from collections.abc import Iterable

from h2.errors import ErrorCodes

from edge.errors import BadRequestError

#: Maximum frame payload in bytes: the smallest limit that a server may set (RFC 9113 section 4.2).
MAX_FRAME = 16_384
#: Type of SETTINGS, and its flag ACK (RFC 9113 section 6.5).
_SETTINGS, _ACK = 0x4, 0x1
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]")


def as_http_1(fields: Iterable[tuple[bytes, bytes]], *, ended: bool) -> bytes:
    """Return a request's pseudo-header and header fields as an HTTP/1.1 head.

    Raises:
        BadRequestError: a field cannot be represented unambiguously in HTTP/1.1.
    """
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    cookies: list[bytes] = []
    length: bytes | None = None
    for name, value in fields:
        if _BAD_VALUE.search(value) or not _TOKEN.fullmatch(name.removeprefix(b":")):
            raise BadRequestError(400, f"expected NAME: VALUE, got {name[:40]!r}")
        if name.startswith(b":"):
            pseudo[name] = value
        elif name == b"cookie":
            cookies.append(value)  # a client may split Cookie into several fields (RFC 9113 section 8.2.3)
        elif name not in {b"host", b"expect"}:
            length = value if name == b"content-length" else length
            lines.append(b"%b: %b\r\n" % (name, value.strip(b" \t")))
    authority = pseudo.get(b":authority") or next((value for name, value in fields if name == b"host"), b"")
    # CONNECT has no :path; its target is the authority (RFC 9113 section 8.5).
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", authority)
    if cookies:
        lines.append(b"cookie: %b\r\n" % b"; ".join(cookies))
    if ended and length is not None and length.strip(b"0"):
        raise BadRequestError(400, f"expected a body of {length[:20].decode('latin-1')} bytes, got none")
    if not ended and length is None:
        lines.append(b"transfer-encoding: chunked\r\n")
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (method, path, authority, b"".join(lines))


class FrameHeaders:
    """Check of frame headers before h2 parses the frames.

    h2 buffers an oversized frame before it rejects it, accepts a preface without SETTINGS, and reports a SETTINGS
    acknowledgement with a payload under another error code than RFC 9113 section 6.5 demands.
    """

    def __init__(self) -> None:
        #: Bytes missing from the current frame payload; initially those of the connection preface (RFC 9113 section
        #: 3.4).
        self._left = 24
        self._header = b""
        self._first = True

    def check(self, data: bytes) -> ErrorCodes | None:
        """Return the error that a frame header in *data* causes, or None; *data* is the next part of the stream."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(9 - len(self._header), len(data) - at)
                self._header += data[at : at + step]
                if len(self._header) == 9:
                    header, self._header = self._header, b""
                    self._left = length = int.from_bytes(header[:3], "big")
                    settings, first = header[3] == _SETTINGS, self._first
                    self._first = False
                    if length > MAX_FRAME or (settings and length and header[4] & _ACK):
                        return ErrorCodes.FRAME_SIZE_ERROR
                    if first and not settings:
                        return ErrorCodes.PROTOCOL_ERROR
            at += step
        return None
