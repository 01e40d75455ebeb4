"""DNS over HTTPS (RFC 8484): the DNS query in a request, and the cache lifetime of a response; sans-IO."""

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote

from dnsmessage import RemoteError, decode_reply, rdtypes
from dnsmessage.message import NOERROR, NXDOMAIN

#: Path of the resource; in the lab, the URI template is ``https://resolver.example.com/dns-query{?dns}``.
PATH = "/dns-query"
MEDIA_TYPE = "application/dns-message"
#: Maximum size of a query, and of a request target, which contains the query in base64; both in bytes.
MAX_QUERY, MAX_TARGET = 4096, 6144
#: Minimum size of a query in bytes: the header.
_HEADER = 12
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")


class DohError(Exception):
    """The request gets an HTTP error instead of a DNS reply; *status* is the HTTP status, the message its reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Head:
    """The relevant parts of a request's head."""

    method: str
    #: Path and query string.
    target: str
    content_type: str = ""

    @property
    def has_query_in_body(self) -> bool:
        """Whether the body of the request is the DNS query."""
        return self.method == "POST"


def check(head: Head) -> None:
    """Check a request's head, before its body is read.

    Raises:
        DohError: 404, 405, 414 or 415.
    """
    if len(head.target) > MAX_TARGET:
        raise DohError(414, f"expected a target of at most {MAX_TARGET} bytes, got {len(head.target)}")
    if head.target.partition("?")[0] != PATH:
        raise DohError(404, f"expected {PATH}, got {head.target[:80]!r}")
    if head.method not in {"GET", "HEAD", "POST"}:
        raise DohError(405, f"expected GET, HEAD or POST, got {head.method[:20]!r}")
    media = head.content_type.partition(";")[0].strip().lower()
    if head.has_query_in_body and media != MEDIA_TYPE:
        raise DohError(415, f"expected content-type {MEDIA_TYPE}, got {head.content_type[:80]!r}")


def query_of(head: Head, body: bytes) -> bytes:
    """Return the DNS query in a request whose head has passed `check`.

    Raises:
        DohError: 400 or 413.
    """
    if head.has_query_in_body:
        query = body
    else:
        parts = head.target.partition("?")[2].split("&")
        values = [unquote(part[4:]) for part in parts if part.startswith("dns=")]
        if len(values) != 1:
            raise DohError(400, f"expected one variable dns, got {len(values)}")
        query = _decoded(values[0])
    if len(query) > MAX_QUERY:
        raise DohError(413, f"expected a query of at most {MAX_QUERY} bytes, got {len(query)}")
    if len(query) < _HEADER or query[2] & 0x80:
        raise DohError(400, "expected a DNS query, got something shorter than its header, or a response")
    return query


def _decoded(value: str) -> bytes:
    """Decode base64url without padding (RFC 4648 section 5); padding is accepted."""
    text = value.rstrip("=")
    if not _BASE64URL.fullmatch(text):
        raise DohError(400, "expected the variable dns in base64url")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise DohError(400, "expected the variable dns in base64url") from None


def max_age(query: bytes, reply: bytes | bytearray) -> int:
    """Return the number of seconds for which an HTTP cache may use *reply* (RFC 8484 section 5.1).

    This is the lowest TTL in the answer section, or the lifetime of a negative answer (RFC 2308 section 5). It is 0 for
    an error, and for a negative answer without an SOA record.
    """
    try:
        message = decode_reply(query, bytes(reply))
    except RemoteError:
        return 0
    if message.rcode not in {NOERROR, NXDOMAIN}:
        return 0
    lifetimes = [record.ttl for record in message.answer]
    if message.rcode == NXDOMAIN or not message.answer:
        soa = [record for record in message.authority if record.rdtype == rdtypes.SOA]
        lifetimes += [min(each.ttl, int.from_bytes(each.rdata[-4:], "big")) for each in soa] or [0]
    return min(lifetimes)
