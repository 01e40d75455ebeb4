"""Look up the answer to one question in one zone (RFC 1034 section 4.3.2).

The lookup tries these cases in order, and the first that matches decides the answer: delegation, exact name, DNAME,
wildcard, NXDOMAIN. At an existing name: CNAME, data, NODATA.

This code is the reference implementation; `nameserver.compiled` encodes its results in advance.
"""

import struct
from dataclasses import dataclass

from dnsmessage import Name, Query, Writer, encode_opt, rdtypes
from dnsmessage.message import AA, CD, HEADER, NOERROR, NXDOMAIN, QR, RD, REFUSED, TC, YXDOMAIN
from dnsmessage.options import ExtendedError, extended_error
from nameserver.zone import RRset, Zone

#: Maximum number of CNAMEs followed inside one zone for one answer; the resolver follows the rest of a longer chain.
MAX_CHAIN = 8
#: Reason sent with REFUSED to clients that support EDNS (RFC 8914).
NOT_HERE = "no zone of this server is at or above the name"
#: Record types for which the addresses of the target names are added to the additional section.
_WITH_ADDRESSES = frozenset({rdtypes.NS, rdtypes.MX, rdtypes.SRV})


@dataclass(frozen=True, slots=True)
class Answer:
    """The rcode, AA flag and records of a response, before encoding."""

    rcode: int
    authoritative: bool
    #: The name that decides the answer: the question's name or one of its ancestors. Compression pointers into the
    #: question may refer only to this name or its ancestors.
    anchor: Name
    answer: tuple[RRset, ...] = ()
    authority: tuple[RRset, ...] = ()
    additional: tuple[RRset, ...] = ()


def answer(zone: Zone, qname: Name, qtype: int) -> Answer:
    """Return the answer for *qname* and *qtype* from *zone*.

    Args:
        zone: the zone; *qname* is at or below its apex.
        qname: the name in the question.
        qtype: the record type; ``ANY`` returns one RRset (RFC 8482).
    """
    chain: list[RRset] = []
    seen = {qname}
    name, anchor = qname, qname
    while True:
        first = not chain
        cut = zone.find_cut(name)
        if cut is not None and not (qtype == rdtypes.DS and cut.name == name):
            # Records below a zone cut are glue and are never returned as an answer (RFC 1034 section 4.2.1).
            anchor = cut.name if first else anchor
            return Answer(NOERROR, not first, anchor, tuple(chain), (cut,), tuple(zone.addresses(cut)))
        node, following = zone.node(name), None
        if node is None:
            encloser = zone.closest_encloser(name)
            dname = zone.find_dname(name)
            if dname is not None:
                anchor = dname.name if first else anchor
                wire = name.wire[: len(name.wire) - len(dname.name.wire)] + dname.rdata[0]
                chain.append(dname)
                if len(wire) > 255:  # the name derived from the DNAME is too long (RFC 6672 section 2.2)
                    return Answer(YXDOMAIN, True, anchor, tuple(chain))
                following = Name(wire)
                chain.append(RRset(name, rdtypes.CNAME, dname.ttl, (wire,)))
            else:
                anchor = encloser if first else anchor
                node = zone.node(Name(b"\x01*" + encloser.wire))
                if node is None:
                    anchor = zone.apex if first else anchor
                    return Answer(NXDOMAIN, True, anchor, tuple(chain), (negative(zone),))
        if node is not None and following is None:
            alias = node.get(rdtypes.CNAME)
            if alias is None or qtype in {rdtypes.CNAME, rdtypes.ANY}:
                found = next(iter(node.values()), None) if qtype == rdtypes.ANY else node.get(qtype)
                if found is None:
                    anchor = zone.apex if first else anchor
                    return Answer(NOERROR, True, anchor, tuple(chain), (negative(zone),))
                extra = tuple(zone.addresses(found)) if found.rdtype in _WITH_ADDRESSES and qtype != rdtypes.ANY else ()
                return Answer(NOERROR, True, anchor, (*chain, _owned(found, name)), (), extra)
            chain.append(_owned(alias, name))
            following = Name(alias.rdata[0])
        assert following is not None  # noqa: S101 - every branch above sets `following` or returns
        if not following.is_below(zone.apex) or len(chain) >= MAX_CHAIN or following in seen:
            return Answer(NOERROR, True, anchor, tuple(chain))
        seen.add(following)
        name = following


def negative(zone: Zone) -> RRset:
    """Return the SOA RRset of a negative answer; its TTL limits how long the answer is cached (RFC 2308 section 3)."""
    return RRset(zone.apex, rdtypes.SOA, zone.negative_ttl, zone.soa.rdata)


def encode(query: Query, content: Answer, limit: int) -> bytes:
    """Encode *content* as the response to *query* in at most *limit* bytes.

    Additional records are left out if they do not fit. If the other sections do not fit either, TC is set and all
    sections are empty. A referral without its glue is useless, so it is truncated instead (RFC 9471 section 3.1).
    """
    needed = content.additional and not content.authoritative
    for additional in (content.additional,) if needed else (content.additional, ()):
        writer = write(query.question, content, additional)
        if HEADER.size + len(query.question) + len(writer.body) + (11 if query.edns else 0) <= limit:
            counts = count(content.answer), count(content.authority), count(additional)
            return assemble(query, content, counts, writer.body)
    return assemble(query, content, (0, 0, 0), b"", TC)


def write(question: bytes, content: Answer, additional: tuple[RRset, ...]) -> Writer:
    """Return a writer that holds the three encoded sections; compression pointers may refer to *question*."""
    writer = Writer(question, content.anchor)
    for section in (content.answer, content.authority, additional):
        for rrset in section:
            for each in rrset.rdata:
                writer.record(rrset.name, rrset.rdtype, rrset.ttl, each, asked=section is content.answer)
    return writer


def assemble(
    query: Query, content: Answer, counts: tuple[int, int, int], body: bytes | bytearray, flags: int = 0
) -> bytes:
    """Return the complete response: header, question, *body*, and an OPT record if the query has one."""
    opt = b""
    if query.edns is not None:
        refused = content.rcode == REFUSED and query.qtype not in {rdtypes.AXFR, rdtypes.IXFR}
        options = extended_error(ExtendedError.NOT_AUTHORITATIVE, NOT_HERE) if refused else b""
        opt = encode_opt(content.rcode, dnssec_ok=query.edns.dnssec_ok, options=options)
    flags |= QR | (AA if content.authoritative else 0) | query.flags & (RD | CD) | content.rcode & 0xF
    an, ns, ar = counts
    head = struct.pack("!6H", query.ident, flags, 1, an, ns, ar + bool(opt))
    return b"".join((head, query.question, body, opt))


def count(section: tuple[RRset, ...]) -> int:
    """Return the number of records in *section*."""
    return sum(len(rrset.rdata) for rrset in section)


def _owned(rrset: RRset, owner: Name) -> RRset:
    """Return *rrset* with *owner* as its name, because an answer from a wildcard carries the name in the question."""
    return rrset if rrset.name == owner else RRset(owner, rrset.rdtype, rrset.ttl, rrset.rdata)
