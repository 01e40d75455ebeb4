"""Responses with a representation: conditional requests, HEAD and (multipart) ranges (RFC 9110 sections 13 and 14)."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aiohttp import web

from origin.conditions import Decision, Validators, decide, format_date, range_applies
from origin.problems import Problem
from origin.ranges import ByteRange, UnsatisfiableError, parse

#: Size of each write to a response, in bytes.
CHUNK = 64 * 1024
#: Maximum size of a body that is sent in one write with its header, in bytes; both then fit into one TCP segment.
SMALL = 1200


@dataclass(frozen=True, slots=True)
class Representation:
    """The current representation of a resource, whose bytes can be produced from any position."""

    length: int
    media_type: str
    validators: Validators
    #: Function that yields the bytes of a range in chunks.
    chunks: Callable[[ByteRange], Iterator[bytes]]

    @classmethod
    def of(cls, body: bytes, media_type: str, validators: Validators) -> "Representation":
        """Return the representation that consists of *body*."""
        return cls(len(body), media_type, validators, lambda part: iter((body[part.first : part.last + 1],)))


def fields_of(request: web.Request) -> dict[str, str]:
    """Return the header fields with lower-case names; repeated lines are joined with commas (RFC 9110 section 5.3)."""
    fields: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        fields[lower] = f"{fields[lower]}, {value}" if lower in fields else value
    return fields


def validator_headers(validators: Validators) -> dict[str, str]:
    """Return ETag and Last-Modified as header fields."""
    headers = {} if validators.etag is None else {"ETag": str(validators.etag)}
    if validators.modified is not None:
        headers["Last-Modified"] = format_date(validators.modified)
    return headers


async def send(request: web.Request, what: Representation, **more: str) -> web.StreamResponse:
    """Respond to a GET or HEAD with the representation *what*, or with the ranges that the client requests.

    Raises:
        Problem: 412, a precondition failed; 416, no range overlaps the representation.
    """
    fields, headers = fields_of(request), {**validator_headers(what.validators), "Accept-Ranges": "bytes", **more}
    match decide(request.method, fields, what.validators):
        case Decision.NOT_MODIFIED:
            return web.Response(status=304, headers=headers)
        case Decision.FAILED:
            raise Problem(412, f"expected another version than {what.validators.etag}: fetch the current one first")
        case Decision.PROCEED:
            pass
    parts: tuple[ByteRange, ...] = ()
    wanted = fields.get("range") if request.method == "GET" else None
    if wanted is not None and range_applies(fields.get("if-range"), what.validators, time.time()):
        try:
            parts = parse(wanted, what.length)
        except UnsatisfiableError:
            raise Problem(
                416, f"expected a range within {what.length} bytes, got {wanted[:60]!r}",
                content_range=f"bytes */{what.length}",
            ) from None  # fmt: skip
    if len(parts) > 1:
        return await _multipart(request, what, parts, headers)
    headers["Content-Type"] = what.media_type
    whole = ByteRange(0, what.length - 1)
    if parts:
        headers["Content-Range"] = parts[0].content_range(what.length)
    part = parts[0] if parts else whole
    status = 206 if parts else 200
    if len(part) <= SMALL:
        return web.Response(status=status, headers=headers, body=b"".join(what.chunks(part)) if len(part) else b"")
    response = web.StreamResponse(status=status, headers={**headers, "Content-Length": str(len(part))})
    await response.prepare(request)
    if request.method == "GET" and len(part):
        for chunk in what.chunks(part):
            await response.write(chunk)
    await response.write_eof()
    return response


async def _multipart(
    request: web.Request, what: Representation, parts: tuple[ByteRange, ...], headers: dict[str, str]
) -> web.StreamResponse:
    """Send several ranges as multipart/byteranges (RFC 9110 section 14.6)."""
    boundary = secrets.token_hex(12)
    heads = [
        f"\r\n--{boundary}\r\nContent-Type: {what.media_type}\r\n"
        f"Content-Range: {part.content_range(what.length)}\r\n\r\n".encode()
        for part in parts
    ]
    end = f"\r\n--{boundary}--\r\n".encode()
    length = sum(map(len, heads)) + sum(map(len, parts)) + len(end)
    headers |= {"Content-Type": f"multipart/byteranges; boundary={boundary}", "Content-Length": str(length)}
    response = web.StreamResponse(status=206, headers=headers)
    await response.prepare(request)
    for head, part in zip(heads, parts, strict=True):
        await response.write(head)
        for chunk in what.chunks(part):
            await response.write(chunk)
    await response.write_eof(end)
    return response
