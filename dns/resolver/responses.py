"""Responses to clients: what a resolution found, encoded once, with the offsets of its TTLs (RFC 1035 section 4.1).

A stored answer is sent again by writing the remaining TTLs into it.  Time is an argument.
"""

import struct
from dataclasses import dataclass, field

from dnsmessage import Query, Record, Writer, encode_opt
from dnsmessage.message import CD, HEADER, QR, RA, RD, SERVFAIL, TC
from resolver.cache import Entry
from resolver.resolution import Failed, Resolved

#: Code of the EDNS option that explains an error (RFC 8914 section 2).
EDE = 15
#: Bytes of explanation sent; the reply must fit a datagram.
MAX_EXPLANATION = 200


@dataclass(slots=True)
class Encoded:
    """The part of a response that follows the question."""

    rcode: int
    answers: int
    authorities: int
    body: bytearray
    #: Offsets of TTLs in `body`, each with the entry that it counts down.
    ttls: list[tuple[int, Entry]] = field(default_factory=list)
    #: When the first entry ends, and when the first TTL counts down.
    expires: float = float("inf")
    until: float = float("-inf")

    def refresh(self, now: float) -> None:
        """Write the TTLs that remain at *now*."""
        if now >= self.until:
            for offset, entry in self.ttls:
                struct.pack_into("!I", self.body, offset, entry.left(now))
            self.until = min((entry.until(now) for _, entry in self.ttls), default=now)


def encode(query: Query, outcome: Resolved, now: float) -> Encoded:
    """Encode what a resolution found as the response to *query*, at *now*."""
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
    """Return the whole response, truncated where a datagram cannot hold it (RFC 2181 section 9).

    Args:
        query: what the client asked.
        encoded: what follows the question.
        udp: whether it is sent over UDP.
        stale: why there is no newer answer than this expired one.
    """
    opt = _opt(query, stale)
    flags = QR | RA | query.flags & (RD | CD) | encoded.rcode
    if HEADER.size + len(query.question) + len(encoded.body) + len(opt) > query.limit(udp=udp):
        return HEADER.pack(query.ident, flags | TC, 1, 0, 0, bool(opt)) + query.question + opt
    head = HEADER.pack(query.ident, flags, 1, encoded.answers, encoded.authorities, bool(opt))
    return b"".join((head, query.question, encoded.body, opt))


def failure(query: Query, failed: Failed, rcode: int = SERVFAIL) -> bytes:
    """Return an error for *query*, with the reason for clients that speak EDNS (RFC 8914)."""
    opt = _opt(query, failed)
    flags = QR | RA | query.flags & (RD | CD) | rcode
    return HEADER.pack(query.ident, flags, 1, 0, 0, bool(opt)) + query.question + opt


def _opt(query: Query, failed: Failed | None) -> bytes:
    """Return the OPT record for a client that speaks EDNS, with the reason of a failure."""
    if query.edns is None:
        return b""
    option = b""
    if failed is not None and failed.reason:
        text = failed.reason.encode()[:MAX_EXPLANATION]
        option = struct.pack("!HHH", EDE, 2 + len(text), failed.code) + text
    return encode_opt(dnssec_ok=query.edns.dnssec_ok, options=option)
