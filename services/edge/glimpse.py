"""The known values of a request whose head is invalid or incomplete, for the access log; sans-IO."""

from collections.abc import Sequence
from dataclasses import dataclass

#: Maximum size of a logged value in bytes; a valid head is limited by its parser instead.
LONGEST = 256


@dataclass(frozen=True, slots=True)
class Glimpse:
    """Fields of a request head as the client sent them, empty if unknown; the fields of `edge.heads.RequestHead`."""

    method: bytes = b""
    target: bytes = b""
    host: bytes = b""
    request_id: bytes = b""
    trace_id: bytes = b""


def of_bytes(received: bytes) -> Glimpse:
    """Return the values at the beginning of an HTTP/1.x connection or request; *received* may be any bytes."""
    line, *lines = received.partition(b"\r\n\r\n")[0].split(b"\r\n")
    method, space, rest = line.partition(b" ")
    if not space or not method.replace(b"-", b"").isalpha():
        return Glimpse()
    fields = [line.partition(b":")[::2] for line in lines]
    return of_fields([(b":method", method), (b":path", rest.partition(b" ")[0]), *fields])


def of_fields(fields: Sequence[tuple[bytes, bytes]]) -> Glimpse:
    """Return the values of pseudo-header and header fields; of fields with the same name, the first counts."""
    known = {name.lower(): value.strip(b" \t")[:LONGEST] for name, value in reversed(fields)}
    return Glimpse(
        known.get(b":method", b""),
        known.get(b":path", b""),
        known.get(b":authority") or known.get(b"host", b""),
        known.get(b"x-request-id", b""),
    )
