"""HTTP/1.1 message heads (RFC 9112): encode any head, parse request heads. `http1_reader` parses responses."""

from collections.abc import Iterable
from dataclasses import dataclass


class HttpError(ValueError):
    """Received data is not valid HTTP/1.1, or ends before the message is complete."""


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Parsed head of an HTTP/1.1 request."""

    method: str
    target: str
    #: Field values, keyed by lower-case name; if a name occurs more than once, the last value.
    fields: dict[str, str]


def encode_head(start: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return an encoded head: start line, field lines and an empty line."""
    return b"\r\n".join([start, *(name + b": " + value for name, value in fields), b"", b""])


def get(host: str, target: str, *lines: str) -> bytes:
    """Return an encoded GET request; *lines* are additional field lines such as ``Connection: close``."""
    return "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("ascii")


def parse_request_head(head: bytes) -> RequestHead:
    r"""Parse a request head, including the ``\r\n\r\n`` at its end.

    Raises:
        HttpError: *head* is not a valid HTTP/1.x request head.
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
