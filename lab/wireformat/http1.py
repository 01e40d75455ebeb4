"""Heads of HTTP/1.1 messages (RFC 9112): encode any, parse a request's.  `http1_reader` reads whole responses."""

from collections.abc import Iterable
from dataclasses import dataclass


class HttpError(ValueError):
    """The peer's bytes are not HTTP/1.1, or end before the message does."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of a request."""

    method: str
    target: str
    #: Values by name in lower case; of several fields with one name, the last.
    fields: dict[str, str]


def encode_head(start: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a head: start line, fields, empty line."""
    return b"\r\n".join([start, *(name + b": " + value for name, value in fields), b"", b""])


def get(host: str, target: str, *lines: str) -> bytes:
    """Return a GET request; *lines* are further field lines such as ``Connection: close``."""
    return "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("ascii")


def parse_request_head(head: bytes) -> RequestHead:
    r"""Parse a request's head, which ends with ``\r\n\r\n``.

    Raises:
        HttpError: with what was expected and what came.
    """
    request_line, *lines = head[:-4].decode("latin-1").split("\r\n")
    words = request_line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise HttpError(f"expected an HTTP/1.1 request line, got {request_line[:80]!r}")
    fields = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise HttpError(f"expected a header 'Name: value', got {line[:80]!r}")
        fields[name.strip().lower()] = value.strip()
    return RequestHead(words[0], words[1], fields)
