"""Encoding of HTTP/1.x responses to clients (RFC 9112 section 6): forwarded and generated ones; sans-IO."""

from email.utils import formatdate

from edge.errors import REASONS
from edge.heads import ResponseHead


def framed(
    head: ResponseHead, fields: bytes, payload: bytes, bodiless: bool, whole: bool, modern: bool, closes: bool
) -> tuple[bytes, bool, bool]:
    """Return the encoded start of a response, whether chunks follow, and whether the connection must close.

    Args:
        head: response head from the origin.
        fields: header lines that the edge adds.
        payload: first part of the body.
        bodiless: whether the response has no body, even if its head declares a length.
        whole: whether *payload* is the whole body.
        modern: whether the client speaks HTTP/1.1 rather than 1.0.
        closes: whether the connection must close after the response for a reason other than its framing.
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
        body: response body.
        kind: media type of the body.
        more: additional header lines.
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
