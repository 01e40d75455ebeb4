"""Header fields on their way through a proxy (RFC 9110 section 7.6, RFC 7239's forerunners, RFC 9112 section 6).

What is for one hop stays on that hop; what could be read in two ways is refused.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from edge.errors import BadRequestError

#: Fields of one connection (RFC 9110 section 7.6.1), besides those that Connection itself names.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: Octets of all fields, and their number: what common servers take.
MAX_HEADER, MAX_FIELDS = 32 * 1024, 100
MAX_TARGET = 8192
#: Methods that may be sent again without harm (RFC 9110 section 9.2.2).
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(rb"[A-Za-z0-9.\-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")
Fields = list[tuple[bytes, bytes]]
VIA = b"1.1 firstbyte-edge"
#: Fields that we write anew, answer ourselves, or that say the same as ours in another way (RFC 7239).
OURS = frozenset({b"via", b"expect", b"forwarded"})


@dataclass(frozen=True, slots=True)
class Framing:
    """How the body of a message is delimited."""

    #: Octets; None when chunked or when there is none.
    length: int | None
    chunked: bool


def request_framing(fields: Fields, version: str) -> Framing:
    """Check what decides where a request ends (RFC 9112 section 6.3).

    Raises:
        BadRequestError: two lengths, a length and a coding, another coding than chunked, or chunked in HTTP/1.0.
    """
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if codings:
        if lengths:
            raise BadRequestError(400, "expected Content-Length or Transfer-Encoding, got both")
        if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
            raise BadRequestError(501, f"expected Transfer-Encoding: chunked, got {b', '.join(codings)[:80]!r}")
        if version != "1.1":
            raise BadRequestError(400, f"expected HTTP/1.1 with Transfer-Encoding, got HTTP/{version}")
        return Framing(None, True)
    if not lengths:
        return Framing(None, False)
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise BadRequestError(400, f"expected one Content-Length in digits, got {b', '.join(lengths)[:80]!r}")
    return Framing(int(lengths[0]), False)


def check_request(method: bytes, target: bytes, fields: Fields, version: str) -> Framing:
    """Check a request's head; return how its body is framed.

    Raises:
        BadRequestError: with the status that fits.
    """
    if version not in {"1.0", "1.1"}:
        raise BadRequestError(505, f"expected HTTP/1.0 or HTTP/1.1, got HTTP/{version}")
    if method == b"CONNECT":
        raise BadRequestError(405, "this is no tunnel")
    if len(target) > MAX_TARGET:
        raise BadRequestError(414, f"expected a target of at most {MAX_TARGET} octets, got {len(target)}")
    if not target.startswith(b"/") and target != b"*":
        raise BadRequestError(400, f"expected a path as target, got {target[:80]!r}")
    for name, value in fields:
        if not _TOKEN.fullmatch(name) or _BAD_VALUE.search(value):
            raise BadRequestError(400, f"malformed field {name[:40]!r}")
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        raise BadRequestError(400, f"expected one Host field, got {len(hosts)}")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise BadRequestError(400, f"expected HOST[:PORT] as Host, got {hosts[0][:80]!r}")
    return request_framing(fields, version)


def end_to_end(fields: Fields) -> Fields:
    """Return the fields without those that are for one hop only."""
    named = {
        token.strip().lower()
        for name, value in fields
        if name == b"connection"
        for token in value.split(b",")
    }  # fmt: skip
    # Nobody may have Content-Length or Host removed by naming it there.
    named -= {b"content-length", b"host"}
    return [(name, value) for name, value in fields if name not in HOP_BY_HOP and name not in named]


def forwarded(fields: Fields, client: str, scheme: str, tls: bytes = b"") -> Fields:
    """Return a request's end-to-end fields with the X-Forwarded ones that are true here.

    What a client claims for itself is kept only in X-Forwarded-For, before what we saw.  *tls* says what its TLS
    connection is like; it goes into X-Forwarded-TLS, where an origin can show it to the client.
    """
    kept = end_to_end(fields)
    claimed = b", ".join(value for name, value in kept if name == b"x-forwarded-for")
    host = next((value for name, value in kept if name == b"host"), b"")
    via = b", ".join([*(value for name, value in kept if name == b"via"), VIA])
    return [
        *((name, value) for name, value in kept if not name.startswith(b"x-forwarded-") and name not in OURS),
        (b"x-forwarded-for", claimed + b", " + client.encode() if claimed else client.encode()),
        (b"x-forwarded-proto", scheme.encode()),
        (b"x-forwarded-host", host),
        *([(b"x-forwarded-tls", tls)] if tls else []),
        (b"via", via),
    ]


def encode(start: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a head: start line, fields, empty line."""
    return b"\r\n".join([start, *(name + b": " + value for name, value in fields), b"", b""])


def wants_close(fields: Fields, version: str) -> bool:
    """Return whether the sender closes after this message (RFC 9112 section 9.3)."""
    tokens = {t.strip().lower() for name, value in fields if name == b"connection" for t in value.split(b",")}
    return b"close" in tokens or (version == "1.0" and b"keep-alive" not in tokens)
