"""Responses as HTTP/1.x clients receive them (RFC 9112 section 6): framing, and those of the edge itself; sans-IO."""

from email.utils import formatdate

from edge.errors import REASONS
from edge.heads import ResponseHead


def framed(
    head: ResponseHead, fields: bytes, payload: bytes, bodiless: bool, whole: bool, modern: bool, closes: bool
) -> tuple[bytes, bool, bool]:
    """Return the beginning of an origin's response, whether chunks follow, and whether the connection must close.

    Args:
        head: the origin's head.
        fields: header lines of the edge.
        payload: the first part of the body.
        bodiless: whether the response has no body, whatever its head says.
        whole: whether *payload* is the whole body.
        modern: whether the client speaks HTTP/1.1 rather than 1.0.
        closes: whether the connection closes after the response in any case.
    """
    length, chunked = head.framing.length, False
    parts = [head.forward, fields]
    if length is not None:
        parts.append(b"content-length: %d\r\n" % length)
    elif not bodiless:
        if modern:
            chunked = not whole
            parts.append(b"transfer-encoding: chunked\r\n")
            payload = (b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b"") + (b"0\r\n\r\n" if whole else b"")
        else:
            closes = True
    if closes:
        parts.append(b"connection: close\r\n")
    elif not modern:
        parts.append(b"connection: keep-alive\r\n")
    parts += (b"\r\n", payload)
    return b"".join(parts), chunked, closes


def own(status: int, body: bytes, kind: bytes, more: bytes, now: float, *, head_only: bool, closes: bool) -> bytes:
    """Return a response that the edge itself generates.

    Args:
        status: status code.
        body: the body.
        kind: its media type.
        more: further header lines.
        now: wall-clock time, in seconds since the epoch.
        head_only: whether the request was HEAD.
        closes: whether the connection closes after the response.
    """
    if status == 503:
        more += b"retry-after: 1\r\n"
    if closes:
        more += b"connection: close\r\n"
    head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%bdate: %b\r\n\r\n" % (
        status, REASONS.get(status, "OK").encode(), kind, len(body), more, formatdate(now, usegmt=True).encode(),
    )  # fmt: skip
    return head if head_only else head + body
