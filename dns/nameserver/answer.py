"""What one zone answers to one question (RFC 1034 section 4.3.2): a ladder of small steps, first match wins.

delegation → exact name → DNAME → wildcard → NXDOMAIN, and at a name: CNAME → data → NODATA

This is the reference: `nameserver.compiled` makes finished answers of what it says.
"""

import struct
from dataclasses import dataclass

from dnsmessage import Name, Query, Writer, encode_opt, rdtypes
from dnsmessage.message import AA, CD, HEADER, NOERROR, NXDOMAIN, QR, RD, TC, YXDOMAIN
from nameserver.zone import RRset, Zone

#: Aliases followed inside one zone for one answer; a longer chain is left for the resolver to follow.
MAX_CHAIN = 8
#: Types whose targets' addresses go into the additional section.
_WITH_ADDRESSES = frozenset({rdtypes.NS, rdtypes.MX, rdtypes.SRV})


@dataclass(frozen=True, slots=True)
class Answer:
    """The sections of a response."""

    rcode: int
    authoritative: bool
    #: The question's name or an ancestor that decides the answer; compression pointers into the question lead to it or
    #: above.
    anchor: Name
    answer: tuple[RRset, ...] = ()
    authority: tuple[RRset, ...] = ()
    additional: tuple[RRset, ...] = ()


def answer(zone: Zone, qname: Name, qtype: int) -> Answer:
    """Answer *qname*, which is at or below the apex of *zone*, for *qtype* (``ANY`` gets one RRset, RFC 8482)."""
    chain: list[RRset] = []
    seen = {qname}
    name, anchor = qname, qname
    while True:
        first = not chain
        cut = zone.find_cut(name)
        if cut is not None and not (qtype == rdtypes.DS and cut.name == name):
            # Records below a cut are glue, never an answer (RFC 1034 section 4.2.1).
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
                if len(wire) > 255:  # RFC 6672 section 2.2
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
        assert following is not None  # noqa: S101 - a node, a DNAME or a return
        if not following.is_below(zone.apex) or len(chain) >= MAX_CHAIN or following in seen:
            return Answer(NOERROR, True, anchor, tuple(chain))
        seen.add(following)
        name = following


def negative(zone: Zone) -> RRset:
    """Return the SOA with the TTL that a negative answer may live (RFC 2308 section 3)."""
    return RRset(zone.apex, rdtypes.SOA, zone.negative_ttl, zone.soa.rdata)


def encode(query: Query, content: Answer, limit: int) -> bytes:
    """Encode a response: additional data that does not fit is left out; if the rest does not fit, TC is set.

    A referral without its glue leads nowhere, so it is truncated instead (RFC 9471 section 3.1).
    """
    needed = content.additional and not content.authoritative
    for additional in (content.additional,) if needed else (content.additional, ()):
        writer = write(query.question, content, additional)
        if HEADER.size + len(query.question) + len(writer.body) + (11 if query.edns else 0) <= limit:
            counts = count(content.answer), count(content.authority), count(additional)
            return assemble(query, content, counts, writer.body)
    return assemble(query, content, (0, 0, 0), b"", TC)


def write(question: bytes, content: Answer, additional: tuple[RRset, ...]) -> Writer:
    """Write the sections that follow *question*."""
    writer = Writer(question, content.anchor)
    for section in (content.answer, content.authority, additional):
        for rrset in section:
            for each in rrset.rdata:
                writer.record(rrset.name, rrset.rdtype, rrset.ttl, each, asked=section is content.answer)
    return writer


def assemble(
    query: Query, content: Answer, counts: tuple[int, int, int], body: bytes | bytearray, flags: int = 0
) -> bytes:
    """Put header, question, *body* and OPT together."""
    opt = b""
    if query.edns is not None:
        opt = encode_opt(content.rcode, dnssec_ok=query.edns.dnssec_ok)
    flags |= QR | (AA if content.authoritative else 0) | query.flags & (RD | CD) | content.rcode & 0xF
    an, ns, ar = counts
    head = struct.pack("!6H", query.ident, flags, 1, an, ns, ar + bool(opt))
    return b"".join((head, query.question, body, opt))


def count(section: tuple[RRset, ...]) -> int:
    """Return how many records *section* has."""
    return sum(len(rrset.rdata) for rrset in section)


def _owned(rrset: RRset, owner: Name) -> RRset:
    """Return *rrset* under the name that was asked for: a wildcard's own name is never in an answer."""
    return rrset if rrset.name == owner else RRset(owner, rrset.rdtype, rrset.ttl, rrset.rdata)
