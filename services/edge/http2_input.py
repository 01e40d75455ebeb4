"""Conversion of HTTP/2 requests to HTTP/1.1 heads, which `edge.heads` parses (RFC 9113); sans-IO."""

import re
from collections.abc import Iterable

from edge.errors import BadRequestError

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
