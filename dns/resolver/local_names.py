"""Special-use names that the resolver answers locally, without asking the root (RFC 6761, 6303, 7686, 8375).

The list does not contain ``test.``, because the lab serves it as an ordinary zone.
"""

from dnsmessage import ROOT, Name, Record, rdtypes
from dnsmessage.message import NOERROR, NXDOMAIN
from resolver.cache import Entry, Negative, Rank
from resolver.resolution import Resolved

#: TTL of all locally generated answers, in seconds.
TTL = 10_800
#: Empty zones: reserved top-level domains, and reverse zones of private and special addresses.
_EMPTY = [
    "invalid.", "onion.", "home.arpa.", "10.in-addr.arpa.", "168.192.in-addr.arpa.", "127.in-addr.arpa.",
    "0.in-addr.arpa.", "254.169.in-addr.arpa.", "2.0.192.in-addr.arpa.", "100.51.198.in-addr.arpa.",
    "113.0.203.in-addr.arpa.", "255.255.255.255.in-addr.arpa.", "d.f.ip6.arpa.", "8.e.f.ip6.arpa.", "9.e.f.ip6.arpa.",
    "a.e.f.ip6.arpa.", "b.e.f.ip6.arpa.", "8.b.d.0.1.0.0.2.ip6.arpa.",
    *(f"{number}.172.in-addr.arpa." for number in range(16, 32)),
]  # fmt: skip
_ZONES = {Name.from_text(name).key for name in _EMPTY}
_LOCALHOST = Name.from_text("localhost.")
_ADDRESSES = {rdtypes.A: bytes((127, 0, 0, 1)), rdtypes.AAAA: bytes(15) + b"\1"}


def local(qname: Name, qtype: int, now: float) -> Resolved | None:
    """Return the local answer to a question; None if *qname* is not a local name.

    *now* is in seconds on the caller's clock.
    """
    if qname.is_below(_LOCALHOST):
        data = _ADDRESSES.get(qtype)
        if data is not None:
            record = Record(qname, qtype, TTL, data)
            return Resolved(NOERROR, (Entry(Rank.AUTHORITATIVE, now, TTL, (record,)),))
        return _negative(NOERROR, _LOCALHOST, now)
    name = qname
    while name != ROOT:
        if name.key in _ZONES:
            return _negative(NOERROR if name == qname else NXDOMAIN, name, now)
        name = name.parent()
    return None


def _negative(rcode: int, zone: Name, now: float) -> Resolved:
    """Return a negative answer with the SOA record that RFC 6303 section 3 specifies for empty zones."""
    soa = zone.wire + b"\6nobody\7invalid\0" + b"".join(n.to_bytes(4, "big") for n in (1, 3600, 1200, 604_800, TTL))
    negative = Negative(rcode, Record(zone, rdtypes.SOA, TTL, soa))
    return Resolved(rcode, (), Entry(Rank.AUTHORITATIVE, now, TTL, (), negative))
