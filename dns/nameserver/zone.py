"""A zone: the records of one name and below, down to its delegations (RFC 1034 section 4.2).

Immutable once made: a change makes a new zone, so that an answer never sees half of one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import dnslib

from nameserver import name as names
from nameserver import rdata as rdatas
from nameserver.errors import ZoneError
from nameserver.name import Name
from nameserver.rdata import Rdata


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record of class IN."""

    name: Name
    #: Type mnemonic, upper case.
    rtype: str
    #: Seconds.
    ttl: int
    rdata: Rdata = field(compare=False)


@dataclass(frozen=True, slots=True)
class RRset:
    """All records of one name and type; they share one TTL (RFC 2181 section 5.2)."""

    name: Name
    rtype: str
    ttl: int
    rdata: tuple[Rdata, ...] = field(compare=False)

    def text(self) -> list[str]:
        """Return each record's RDATA as a master file would have it."""
        return [each.toZone() for each in self.rdata]


class Zone:
    """Names, RRsets and cuts of one zone.

    Raises:
        ZoneError: no SOA or NS at the apex, a CNAME beside other data, two TTLs in one RRset.
    """

    def __init__(self, apex: Name, records: Iterable[Record]) -> None:
        self.apex = apex
        collected: dict[tuple[Name, str], tuple[int, dict[str, Rdata]]] = {}
        for record in records:
            ttl, found = collected.get((record.name, record.rtype), (record.ttl, {}))
            found.setdefault(record.rdata.toZone(), record.rdata)
            collected[record.name, record.rtype] = (min(ttl, record.ttl), found)
        self._nodes: dict[Name, dict[str, RRset]] = {}
        for (name, rtype), (ttl, found) in collected.items():
            self._nodes.setdefault(name, {})[rtype] = RRset(name, rtype, ttl, tuple(found.values()))
        self._check()
        #: Names that exist only because something exists below them (RFC 8020 calls them empty non-terminals).
        self._exists: set[Name] = set()
        for name in self._nodes:
            for depth in range(len(name) - len(apex) + 1):
                self._exists.add(name[depth:])
        self.cuts = {n for n, node in self._nodes.items() if "NS" in node and n != apex}

    def __repr__(self) -> str:
        return f"<Zone {names.to_text(self.apex)} serial={self.serial} rrsets={sum(map(len, self._nodes.values()))}>"

    def __iter__(self) -> Iterator[RRset]:
        for name in sorted(self._nodes, key=lambda n: n[::-1]):
            yield from self._nodes[name].values()

    @property
    def soa(self) -> RRset:
        """The start of authority."""
        return self._nodes[self.apex]["SOA"]

    @property
    def serial(self) -> int:
        """The zone's version (RFC 1982)."""
        return int(self.soa.rdata[0].times[0])

    @property
    def negative_ttl(self) -> int:
        """Seconds for which NXDOMAIN and NODATA may be kept (RFC 2308 section 3)."""
        return min(self.soa.ttl, int(self.soa.rdata[0].times[4]))

    def node(self, name: Name) -> dict[str, RRset] | None:
        """Return the RRsets at *name* by type; empty for an empty non-terminal, None when the name does not exist."""
        node = self._nodes.get(name)
        if node is None and name in self._exists:
            return {}
        return node

    def find_cut(self, name: Name) -> RRset | None:
        """Return the NS RRset of the highest delegation at or above *name*, below the apex."""
        for length in range(len(self.apex) + 1, len(name) + 1):
            candidate = name[len(name) - length :]
            if candidate in self.cuts:
                return self._nodes[candidate]["NS"]
        return None

    def closest_encloser(self, name: Name) -> Name:
        """Return the longest existing ancestor of *name* (RFC 4592 section 3.3.1)."""
        while name not in self._exists:
            name = name[1:]
        return name

    def replace(self, name: Name, rtype: str, ttl: int, rdata: Iterable[Rdata]) -> "Zone":
        """Return the zone with the RRset of *name* and *rtype* replaced (removed when empty) and the serial one up."""
        new = [Record(name, rtype, ttl, each) for each in rdata]
        kept = [r for r in self._records() if (r.name, r.rtype) != (name, rtype) and r.rtype != "SOA"]
        if rtype == "SOA":
            raise ZoneError("expected any type but SOA: its serial is counted here")
        old = self.soa.rdata[0]
        times = (old.times[0] % (2**32 - 1) + 1, *old.times[1:])
        soa = Record(self.apex, "SOA", self.soa.ttl, dnslib.SOA(old.mname, old.rname, times))
        return Zone(self.apex, [soa, *kept, *new])

    def _records(self) -> Iterator[Record]:
        for rrset in self:
            for each in rrset.rdata:
                yield Record(rrset.name, rrset.rtype, rrset.ttl, each)

    def _check(self) -> None:
        top = self._nodes.get(self.apex, {})
        where = names.to_text(self.apex)
        if "SOA" not in top or len(top["SOA"].rdata) != 1:
            raise ZoneError(
                f"expected one SOA record at {where}, got {len(top['SOA'].rdata) if 'SOA' in top else 'none'}"
            )
        if "NS" not in top:
            raise ZoneError(f"expected NS records at {where}, got none")
        for name, node in self._nodes.items():
            if "CNAME" in node and (len(node) > 1 or len(node["CNAME"].rdata) > 1):
                others = ", ".join(sorted(node)) if len(node) > 1 else "two CNAME records"
                raise ZoneError(f"expected nothing beside the CNAME at {names.to_text(name)}, got {others}")
            if "SOA" in node and name != self.apex:
                raise ZoneError(f"expected SOA at {where} only, got one at {names.to_text(name)}")

    def addresses(self, rrset: RRset) -> list[RRset]:
        """Return the address RRsets in this zone (glue included) of the names that *rrset* points to."""
        found: list[RRset] = []
        for each in rrset.rdata:
            target = rdatas.target(each)
            node = self._nodes.get(target) if target is not None else None
            found.extend(node[rtype] for rtype in ("A", "AAAA") if node and rtype in node)
        return found
