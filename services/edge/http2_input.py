"""Checks on what arrives over HTTP/2, before the library h2 or the reader of heads gets it (RFC 9113); sans-IO."""

import re
from collections.abc import Iterable

from edge.errors import BadRequestError

#: Maximum frame payload in bytes: the smallest limit that a server may set (RFC 9113 section 4.2).
MAX_FRAME = 16_384
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
    length = False
    for name, value in fields:
        if _BAD_VALUE.search(value) or not _TOKEN.fullmatch(name.removeprefix(b":")):
            raise BadRequestError(400, f"expected NAME: VALUE, got {name[:40]!r}")
        if name.startswith(b":"):
            pseudo[name] = value
        elif name == b"cookie":
            cookies.append(value)  # a client may split Cookie into several fields (RFC 9113 section 8.2.3)
        elif name not in {b"host", b"expect"}:
            length = length or name == b"content-length"
            lines.append(b"%b: %b\r\n" % (name, value.strip(b" \t")))
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    authority = pseudo.get(b":authority") or next((value for name, value in fields if name == b"host"), b"")
    if cookies:
        lines.append(b"cookie: %b\r\n" % b"; ".join(cookies))
    if not ended and not length:
        lines.append(b"transfer-encoding: chunked\r\n")
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (method, path, authority, b"".join(lines))


class FrameLengths:
    """Check of frame lengths before h2 parses them, because h2 buffers an oversized frame before it rejects it."""

    def __init__(self) -> None:
        #: Bytes missing from the current frame payload; initially those of the connection preface (RFC 9113 section
        #: 3.4).
        self._left = 24
        self._header = b""

    def fit(self, data: bytes) -> bool:
        """Return False if *data* contains the header of a frame whose payload exceeds `MAX_FRAME` bytes."""
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(9 - len(self._header), len(data) - at)
                self._header += data[at : at + step]
                if len(self._header) == 9:
                    self._left = int.from_bytes(self._header[:3], "big")
                    self._header = b""
                    if self._left > MAX_FRAME:
                        return False
            at += step
        return True
