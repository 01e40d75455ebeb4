"""Responses to clients: results encoded once, with the offsets of their TTLs (RFC 1035 section 4.1).

Before a stored response is sent again, only its TTLs are updated. The caller passes the time.
"""

import struct
from dataclasses import dataclass, field

from dnsmessage import Query, Record, Writer, encode_opt
from dnsmessage.message import CD, HEADER, QR, RA, RD, SERVFAIL, TC
from dnsmessage.options import extended_error
from resolver.cache import Entry
from resolver.resolution import Failed, Resolved


@dataclass(slots=True)
class Encoded:
    """The encoded part of a response that follows the question."""

    rcode: int
    answers: int
    authorities: int
    body: bytearray
    #: Offset of each TTL in `body`, with the cache entry that determines its value.
    ttls: list[tuple[int, Entry]] = field(default_factory=list)
    #: Time when the first entry expires.
    expires: float = float("inf")
    #: Time of the next TTL update.
    until: float = float("-inf")

    def refresh(self, now: float) -> None:
        """Update the TTLs in the body to the values remaining at *now*."""
        if now >= self.until:
            for offset, entry in self.ttls:
                struct.pack_into("!I", self.body, offset, entry.left(now))
            self.until = min((entry.until(now) for _, entry in self.ttls), default=now)


def encode(query: Query, outcome: Resolved, now: float) -> Encoded:
    """Encode the result of a resolution as the response to *query*, with the TTLs remaining at *now*."""
    writer = Writer(query.question, query.qname)
    ttls = []

    def add(record: Record, entry: Entry) -> None:
        start = len(writer.body)
        writer.record(record.name, record.rdtype, 0, record.rdata)
        end = start
        while writer.body[end] and writer.body[end] < 0xC0:
            end += 1 + writer.body[end]
        ttls.append((end + (2 if writer.body[end] else 1) + 4, entry))

    count = 0
    for entry in outcome.answer:
        for record in entry.records:
            add(record, entry)
            count += 1
    negative = outcome.negative
    soa = negative.negative.soa if negative is not None and negative.negative is not None else None
    if negative is not None and soa is not None:
        add(soa, negative)
    expires = min((entry.expires for entry in outcome.entries), default=now)
    encoded = Encoded(outcome.rcode, count, int(soa is not None), writer.body, ttls, expires)
    encoded.refresh(now)
    return encoded


def respond(query: Query, encoded: Encoded, *, udp: bool, stale: Failed | None = None) -> bytes:
    """Return the complete response, truncated if it exceeds the client's size limit (RFC 2181 section 9).

    Args:
        query: the client's query.
        encoded: the part of the response after the question.
        udp: whether the response is sent over UDP.
        stale: for an expired answer, the reason why no fresh one is available.
    """
    opt = _opt(query, stale)
    flags = QR | RA | query.flags & (RD | CD) | encoded.rcode
    if HEADER.size + len(query.question) + len(encoded.body) + len(opt) > query.limit(udp=udp):
        return HEADER.pack(query.ident, flags | TC, 1, 0, 0, bool(opt)) + query.question + opt
    head = HEADER.pack(query.ident, flags, 1, encoded.answers, encoded.authorities, bool(opt))
    return b"".join((head, query.question, encoded.body, opt))


def failure(query: Query, failed: Failed, rcode: int = SERVFAIL) -> bytes:
    """Return an error response to *query*, with the reason if the client supports EDNS (RFC 8914)."""
    opt = _opt(query, failed)
    flags = QR | RA | query.flags & (RD | CD) | rcode
    return HEADER.pack(query.ident, flags, 1, 0, 0, bool(opt)) + query.question + opt


def _opt(query: Query, failed: Failed | None) -> bytes:
    """Return the OPT record, with the failure reason if there is one; empty if the client does not support EDNS."""
    if query.edns is None:
        return b""
    option = b""
    if failed is not None and failed.reason:
        option = extended_error(failed.code, failed.reason)
    return encode_opt(dnssec_ok=query.edns.dnssec_ok, options=option)
