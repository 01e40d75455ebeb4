"""What one zone answers to one question (RFC 1034 section 4.3.2): a ladder of small steps, first match wins.

delegation → exact name → wildcard → NXDOMAIN, and at a name: CNAME → data → NODATA
"""

from dataclasses import dataclass

from nameserver.name import Name, is_below
from nameserver.rdata import target
from nameserver.zone import RRset, Zone

NOERROR = 0
NXDOMAIN = 3

#: CNAMEs followed inside one zone for one answer; a longer chain is left for the resolver to walk.
MAX_CHAIN = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """The sections of a response."""

    rcode: int
    authoritative: bool
    answer: tuple[RRset, ...] = ()
    authority: tuple[RRset, ...] = ()
    additional: tuple[RRset, ...] = ()


def answer(zone: Zone, qname: Name, qtype: str) -> Answer:
    """Answer *qname*, which is at or below the apex of *zone*, for *qtype* (``ANY`` gets one RRset, RFC 8482)."""
    chain: list[RRset] = []
    name = qname
    while True:
        cut = zone.find_cut(name)
        if cut is not None and not (qtype == "DS" and cut.name == name):
            # What we hold below a cut is glue: never an answer (RFC 1034 section 4.2.1).
            return Answer(NOERROR, bool(chain), tuple(chain), (cut,), tuple(zone.addresses(cut)))
        node = zone.node(name)
        owner = name
        if node is None:
            wildcard = zone.node((b"*", *zone.closest_encloser(name)))
            if wildcard is None:
                return Answer(NXDOMAIN, True, tuple(chain), (_negative(zone),))
            node, owner = wildcard, name
        alias = node.get("CNAME")
        if alias is not None and qtype not in {"CNAME", "ANY"}:
            chain.append(_owned(alias, owner))
            following = target(alias.rdata[0])
            if following is None or not is_below(following, zone.apex) or len(chain) >= MAX_CHAIN:
                return Answer(NOERROR, True, tuple(chain))
            if any(following == each.name for each in chain):
                return Answer(NOERROR, True, tuple(chain))
            name = following
            continue
        found = next(iter(node.values()), None) if qtype == "ANY" else node.get(qtype)
        if found is None:
            return Answer(NOERROR, True, tuple(chain), (_negative(zone),))
        additional = zone.addresses(found) if qtype in {"NS", "MX", "SRV"} else []
        return Answer(NOERROR, True, (*chain, _owned(found, owner)), (), tuple(additional))


def _owned(rrset: RRset, owner: Name) -> RRset:
    """Return *rrset* under the name that was asked for: a wildcard's own name is never in an answer."""
    return rrset if rrset.name == owner else RRset(owner, rrset.rtype, rrset.ttl, rrset.rdata)


def _negative(zone: Zone) -> RRset:
    """Return the SOA with the TTL that a negative answer may live (RFC 2308 section 3)."""
    return RRset(zone.apex, "SOA", zone.negative_ttl, zone.soa.rdata)
