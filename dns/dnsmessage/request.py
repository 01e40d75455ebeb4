"""Decode requests that carry records: UPDATE (RFC 2136), NOTIFY (RFC 1996) and IXFR (RFC 1995).

Each request has one question, which names the zone, and records in sections that are empty in ordinary queries.
`dnsmessage.decode_query` decodes ordinary queries, with stricter checks.
"""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from dnsmessage import rdtypes
from dnsmessage.errors import RemoteError
from dnsmessage.message import HEADER, MAX_RECORDS, Edns, _Reader
from dnsmessage.name import Name

QUERY, NOTIFY, UPDATE = 0, 4, 5


class Entry(NamedTuple):
    """One record of a request; its class and TTL may have a special meaning (RFC 2136 sections 2.4 and 2.5)."""

    name: Name
    rdtype: int
    rdclass: int
    ttl: int
    #: RDATA in wire form, with uncompressed names.
    rdata: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A decoded request.  Prerequisites of an UPDATE are in *answer*, its updates in *authority*."""

    ident: int
    flags: int
    #: The question in wire form, as the client sent it.
    question: bytes
    qname: Name
    qtype: int
    qclass: int
    answer: tuple[Entry, ...]
    authority: tuple[Entry, ...]
    edns: Edns | None

    @property
    def opcode(self) -> int:
        """The kind of request: `QUERY`, `NOTIFY` or `UPDATE`."""
        return self.flags >> 11 & 0xF


def decode_zone(wire: bytes) -> tuple[Name, int, int]:
    """Return the name, type and class in a request's question, without decoding the rest of the request.

    *wire* has at least 12 bytes.

    Raises:
        RemoteError: FORMERR; the question is malformed, or there is not exactly one question.
    """
    if wire[4:6] != b"\0\1":
        raise RemoteError("expected one question")
    reader = _Reader(wire)
    try:
        qname = reader.name()
        qtype, qclass = struct.unpack_from("!HH", wire, reader.at)
    except (IndexError, struct.error):
        raise RemoteError("the question is cut short") from None
    if len(qname.wire) != reader.at - HEADER.size:
        raise RemoteError("expected a question without compression")
    return qname, qtype, qclass


def decode_request(wire: bytes, maximum: int = MAX_RECORDS) -> Request:
    """Decode a request of at least 12 bytes whose TSIG record, if any, has been removed.

    Raises:
        RemoteError: FORMERR; the request is malformed, has more than *maximum* records, or does not contain exactly one
            question.
    """
    qname, qtype, qclass = decode_zone(wire)
    ident, flags, _, *counts = HEADER.unpack_from(wire)
    if sum(counts) > maximum:
        raise RemoteError(f"expected at most {maximum} records, got {sum(counts)}")
    reader = _Reader(wire)
    sections: list[tuple[Entry, ...]] = []
    edns = None
    try:
        reader.name()
        end = reader.at = reader.at + 4
        for count in counts:
            entries = []
            for _ in range(count):
                owner, rdtype, rdclass, ttl, rdata = reader.record()
                if rdtype == rdtypes.OPT:
                    edns = reader.opt(owner, rdclass, ttl, rdata)
                else:
                    entries.append(Entry(owner, rdtype, rdclass, ttl, rdata))
            sections.append(tuple(entries))
        if reader.at != len(wire):
            raise RemoteError("expected nothing after the last record")
    except (IndexError, struct.error):
        raise RemoteError("the message is cut short") from None
    return Request(ident, flags, wire[HEADER.size : end], qname, qtype, qclass, sections[0], sections[1], edns)
