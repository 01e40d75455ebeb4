"""Queries and replies of a stub, and what a reply means (RFC 1034 section 5.2.2, RFC 2308).

No socket, no clock: a reply says for how long it holds, and the shells know since when.
"""

import struct
from dataclasses import dataclass

import dnslib

from stub.errors import MalformedReplyError, NoAddress, NoSuchName, ServerFailure

#: UDP payload that we accept (DNS flag day 2020).
PAYLOAD = 1232
#: CNAMEs followed within one reply.
MAX_CHAIN = 16
#: Seconds that a negative answer without SOA is kept: none (RFC 2308 section 5).
NO_SOA_TTL = 0
NOERROR, NXDOMAIN = 0, 3


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of one name and type."""

    #: As asked.
    name: str
    rdtype: str
    #: Master-file text of each record: addresses, in the order of the reply.
    rdata: tuple[str, ...]
    #: Seconds that remain; the smallest TTL along the CNAMEs.
    ttl_s: float
    #: When it ends, on the clock of the stub (monotonic seconds).
    expires_at: float
    #: Whether it came from this stub's own cache.
    cached: bool
    #: From the first query to the reply that was used; 0 when cached.
    rtt_ms: float
    #: ``address:port`` of the server that answered; empty for literals.
    server: str
    rcode: str = "NOERROR"
    bytes_sent: int = 0
    bytes_received: int = 0
    #: The end of the CNAME chain.
    canonical_name: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A decoded reply to our own query."""

    rcode: int
    truncated: bool
    message: dnslib.DNSRecord


def query(ident: int, name: str, rdtype: str) -> bytes:
    """Encode a recursive query with EDNS.

    Raises:
        ValueError: *name* is no domain name or *rdtype* no type.
    """
    qtype = dnslib.QTYPE.reverse.get(rdtype)
    if qtype is None:
        raise ValueError(f"expected a record type, got {rdtype!r}")
    labels = [] if name in {"", "."} else name.rstrip(".").split(".")
    try:
        octets = [label.encode("idna") if not label.isascii() else label.encode() for label in labels]
    except UnicodeError:
        raise ValueError(f"expected a domain name, got {name!r}") from None
    if any(not 0 < len(each) < 64 for each in octets) or sum(len(each) + 1 for each in octets) > 254:
        raise ValueError(f"expected a domain name with labels of 1 to 63 octets, got {name!r}")
    head = struct.pack("!6H", ident, 0x0100, 1, 0, 0, 1)
    question = b"".join(bytes([len(each)]) + each for each in octets) + b"\0" + struct.pack("!HH", qtype, 1)
    return head + question + struct.pack("!BHHIH", 0, 41, PAYLOAD, 0, 0)


def parse(sent: bytes, received: bytes) -> Reply:
    """Decode *received* as the reply to *sent*.

    Raises:
        MalformedReplyError: other id, other question, or no DNS message at all.
    """
    if len(received) < 12 or received[:2] != sent[:2] or not received[2] & 0x80:
        raise MalformedReplyError("not a reply to this query")
    end = len(sent) - 11
    if received[12:end].lower() != sent[12:end].lower():
        raise MalformedReplyError("a reply to another question")
    try:
        message = dnslib.DNSRecord.parse(received)
    except Exception as error:  # dnslib promises none (DNSError, ValueError were seen); unreadable is no reply
        raise MalformedReplyError(f"{type(error).__name__}: {error}") from None
    return Reply(message.header.rcode, bool(message.header.tc), message)


def interpret(reply: Reply, name: str, rdtype: str) -> tuple[tuple[str, ...], float, str]:
    """Return the RDATA, TTL in seconds and canonical name that *reply* gives for the question.

    Raises:
        NoSuchName, NoAddress: the reply denies the name or the type; `negative_ttl` says for how long.
        ServerFailure: any other rcode.
    """
    if reply.rcode not in {NOERROR, NXDOMAIN}:
        rcode = dnslib.RCODE.forward.get(reply.rcode, f"RCODE{reply.rcode}")
        raise ServerFailure(name, rdtype, f"{name}: the server answered {rcode}")
    wanted = dnslib.QTYPE.reverse[rdtype]
    current, ttl = _key(name), float("inf")
    for _ in range(MAX_CHAIN):
        found = [rr for rr in reply.message.rr if rr.rtype == wanted and _key(str(rr.rname)) == current]
        if found:
            ttl = min(ttl, *(float(rr.ttl) for rr in found))
            return tuple(str(rr.rdata) for rr in found), ttl, current + "."
        alias = [rr for rr in reply.message.rr if rr.rtype == dnslib.QTYPE.CNAME and _key(str(rr.rname)) == current]
        if not alias:
            break
        ttl, current = min(ttl, float(alias[0].ttl)), _key(str(alias[0].rdata))
    if reply.rcode == NXDOMAIN:
        raise NoSuchName(name, rdtype, f"{name}: no such name (NXDOMAIN)")
    raise NoAddress(name, rdtype, f"{name}: exists, and has no {rdtype} record (NODATA)")


def negative_ttl(reply: Reply) -> float:
    """Return the seconds for which a negative *reply* may be kept (RFC 2308 section 5)."""
    for rr in reply.message.auth:
        if rr.rtype == dnslib.QTYPE.SOA:
            return float(min(rr.ttl, rr.rdata.times[4]))
    return NO_SOA_TTL


def _key(name: str) -> str:
    return name.rstrip(".").lower()
