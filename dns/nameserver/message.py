"""Queries and responses on the wire (RFC 1035 section 4; EDNS RFC 6891; truncation RFC 2181 section 9).

`Responder` turns the bytes of a query into the bytes of a response.  It opens no socket and reads no clock.
"""

import struct
from dataclasses import dataclass

import dnslib

import serving
from nameserver.answer import Answer, answer
from nameserver.errors import QueryError
from nameserver.name import Name
from nameserver.zone import RRset, Zone

FORMERR, SERVFAIL, NOTIMP, REFUSED, BADVERS = 1, 2, 4, 5, 16
#: The largest datagram that we send: fits the smallest IPv6 path, so it is never fragmented (DNS flag day 2020).
MAX_UDP = 1232
#: What a client takes that says nothing (RFC 1035 section 4.2.1).
PLAIN_UDP = 512
#: Encoded responses kept.  A small zone has a few dozen; random names must not grow it without end.
MAX_ENCODED = 20_000

_HEADER = struct.Struct("!HHHHHH")
_TYPE_NAMES: dict[int, str] = dict(dnslib.QTYPE.forward)
QR, AA, TC, RD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0010


@dataclass(frozen=True, slots=True)
class Query:
    """A query, decoded as far as an authoritative server needs it."""

    id: int
    flags: int
    #: The question as it came, octet for octet: a response repeats it (case included).
    question: bytes
    qname: Name
    qtype: str
    qclass: int
    #: UDP payload that the client takes; None without EDNS.
    payload: int | None
    edns_version: int


@dataclass(frozen=True, slots=True)
class Response:
    """A response and what a log or a counter wants to know of it."""

    wire: bytes
    rcode: int
    truncated: bool


class Responder:
    """Answers queries from a set of zones."""

    def __init__(self, zones: dict[Name, Zone] | None = None) -> None:
        self._zones: dict[Name, Zone] = dict(zones or {})
        self._encoded: dict[tuple[bytes, int], Response] = {}

    @property
    def zones(self) -> dict[Name, Zone]:
        """The zones by apex."""
        return self._zones

    def put(self, zone: Zone) -> None:
        """Serve *zone* from now on, in place of the one with the same apex."""
        self._zones[zone.apex] = zone
        self._encoded.clear()

    def respond(self, wire: bytes, *, udp: bool) -> Response | None:
        """Return the response to *wire*; None where none must be sent (not a query, or too short to answer)."""
        if len(wire) < 12 or wire[2] & 0x80:
            return None
        limit = 1 if udp else 0
        # Everything but the id decides the response: an exact match needs no decoding.
        key = (wire[2:], limit)
        hit = self._encoded.get(key)
        if hit is not None:
            return Response(wire[:2] + hit.wire[2:], hit.rcode, hit.truncated)
        response = self._respond(wire, udp=udp)
        if len(self._encoded) >= MAX_ENCODED:
            self._encoded.clear()
        self._encoded[key] = response
        return response

    def servfail(self, wire: bytes) -> bytes:
        """Return SERVFAIL for *wire* (a fault switch uses it)."""
        return _error(wire, SERVFAIL).wire

    def find_zone(self, qname: Name) -> Zone | None:
        """Return the closest zone at or above *qname*."""
        for depth in range(len(qname) + 1):
            zone = self._zones.get(qname[depth:])
            if zone is not None:
                return zone
        return None

    def _respond(self, wire: bytes, *, udp: bool) -> Response:
        try:
            query = parse(wire)
            if query.edns_version > 0:
                return _encode(query, Answer(BADVERS, False), PLAIN_UDP)
        except QueryError as error:
            return _error(wire, error.rcode)
        zone = self.find_zone(query.qname)
        if zone is None or query.qclass not in {1, 255} or query.qtype in {"AXFR", "IXFR"}:
            return _encode(query, Answer(REFUSED, False), PLAIN_UDP)
        limit = min(max(query.payload or PLAIN_UDP, PLAIN_UDP), MAX_UDP) if udp else 65535
        return _encode(query, answer(zone, query.qname, query.qtype), limit)


def parse(wire: bytes) -> Query:
    """Decode a query.

    Raises:
        QueryError: with FORMERR or NOTIMP.
    """
    ident, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(wire)
    if flags >> 11 & 0xF:
        raise QueryError(NOTIMP, f"opcode {flags >> 11 & 0xF}")
    if questions != 1 or answers or authorities:
        raise QueryError(FORMERR, "expected one question and nothing else")
    qname, offset = _name(wire, 12)
    if offset + 4 > len(wire):
        raise QueryError(FORMERR, "the question is cut short")
    qtype, qclass = struct.unpack_from("!HH", wire, offset)
    question = wire[12 : offset + 4]
    offset += 4
    payload, version = None, 0
    for _ in range(additionals):
        owner, offset = _name(wire, offset)
        if offset + 10 > len(wire):
            raise QueryError(FORMERR, "a record is cut short")
        rtype, rclass, ttl, length = struct.unpack_from("!HHIH", wire, offset)
        offset += 10 + length
        if offset > len(wire):
            raise QueryError(FORMERR, "a record is cut short")
        if rtype == 41:  # OPT
            if payload is not None or owner:
                raise QueryError(FORMERR, "expected at most one OPT record, at the root")
            payload, version = rclass, ttl >> 16 & 0xFF
    return Query(ident, flags, question, qname, _TYPE_NAMES.get(qtype, f"TYPE{qtype}"), qclass, payload, version)


def _name(wire: bytes, offset: int) -> tuple[Name, int]:
    labels: list[bytes] = []
    size = 1
    while True:
        if offset >= len(wire):
            raise QueryError(FORMERR, "a name is cut short")
        length = wire[offset]
        offset += 1
        if length == 0:
            return tuple(labels), offset
        if length > 63:
            raise QueryError(FORMERR, "expected a name without compression")
        label = wire[offset : offset + length]
        size += length + 1
        if len(label) < length or size > 255:
            raise QueryError(FORMERR, "a name is cut short or too long")
        labels.append(label.lower())
        offset += length


def _encode(query: Query, content: Answer, limit: int) -> Response:
    """Encode, leaving out additional data that does not fit, then setting TC when the rest does not.

    A referral without its glue leads nowhere: it is truncated instead (RFC 9471 section 3.1).
    """
    needed = content.additional and not content.authoritative
    for additional in (content.additional,) if needed else (content.additional, ()):
        wire = _pack(query, content, content.answer, content.authority, additional)
        if len(wire) <= limit:
            return Response(wire, content.rcode, False)
    wire = _pack(query, content, (), (), (), truncated=True)
    return Response(wire, content.rcode, True)


def _pack(
    query: Query,
    content: Answer,
    answers: tuple[RRset, ...],
    authority: tuple[RRset, ...],
    additional: tuple[RRset, ...],
    *,
    truncated: bool = False,
) -> bytes:
    buffer = serving.Buffer()
    flags = (
        QR
        | (AA if content.authoritative else 0)
        | (TC if truncated else 0)
        | query.flags & (RD | CD)
        | content.rcode & 0xF
    )
    counts = [sum(len(rrset.rdata) for rrset in section) for section in (answers, authority, additional)]
    edns = query.payload is not None
    buffer.append(_HEADER.pack(query.id, flags, 1, counts[0], counts[1], counts[2] + edns))
    buffer.append(query.question)
    _remember_question(buffer, query)
    for rrset in (*answers, *authority, *additional):
        label = dnslib.DNSLabel(rrset.name)
        rtype = dnslib.QTYPE.reverse[rrset.rtype]
        for each in rrset.rdata:
            dnslib.RR(label, rtype, 1, rrset.ttl, each).pack(buffer)
    if edns:
        buffer.append(struct.pack("!BHHBBHH", 0, 41, MAX_UDP, content.rcode >> 4, 0, 0, 0))
    return bytes(buffer.data)


def _remember_question(buffer: serving.Buffer, query: Query) -> None:
    """Tell the compressor where the question's labels stand, so that answers point to them."""
    offset = 12
    for depth, label in enumerate(query.qname):
        buffer.names.setdefault(tuple(query.qname[depth:]), offset)
        offset += len(label) + 1


def _error(wire: bytes, rcode: int) -> Response:
    """Return an error with the header, and the question where it can be read."""
    ident, flags = struct.unpack_from("!HH", wire)
    question = b""
    try:
        _, offset = _name(wire, 12)
        question = (
            wire[12 : offset + 4] if struct.unpack_from("!H", wire, 4)[0] == 1 and offset + 4 <= len(wire) else b""
        )
    except QueryError:
        pass
    head = _HEADER.pack(ident, QR | flags & (0x7800 | RD | CD) | rcode & 0xF, bool(question), 0, 0, 0)
    return Response(head + question, rcode, False)
