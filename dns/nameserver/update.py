"""Dynamic update: prerequisites and changes of one UPDATE request (RFC 2136 section 3).

`changed` returns a `Change` and does not modify the zone, so a failed update has no effect. The caller checks the
signature first, and applies and stores the change afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from dnsmessage import Name, Record, rcode_to_text, rdtypes
from dnsmessage import rdata as rdatas
from dnsmessage.message import FORMERR, MAX_TTL, NOTZONE, NXDOMAIN, NXRRSET, REFUSED, YXDOMAIN, YXRRSET
from dnsmessage.request import Entry, Request
from nameserver.changes import Change, is_newer, next_serial, serial_of, with_serial
from nameserver.errors import NameServerError
from nameserver.zone import Zone

_IN, _NONE, _ANY = rdtypes.IN, rdtypes.NONE, rdtypes.ANY
#: Singleton types: a name has at most one record of the type, and adding a record replaces it.
_SINGLE = frozenset({rdtypes.CNAME, rdtypes.DNAME})
#: Types that cannot be deleted at the apex as a whole (RFC 2136 section 3.4.2.3).
_KEPT = frozenset({rdtypes.SOA, rdtypes.NS})
#: ``permitted(name, rdtype)`` returns whether the client may change records of that name and type.
Permitted = Callable[[Name, int], bool]


class UpdateError(NameServerError):
    """The UPDATE is rejected; *rcode* is the rcode of the reply."""

    def __init__(self, rcode: int, message: str) -> None:
        super().__init__(f"{rcode_to_text(rcode)}: {message}")
        self.rcode = rcode


@dataclass(slots=True)
class _Records:
    """A mutable RRset."""

    ttl: int = 0
    #: RDATA, keyed by its form with names in lower case; records are compared by that key.
    data: dict[bytes, bytes] = field(default_factory=dict)


class _Draft:
    """Working copy of the names that an update reads or changes."""

    def __init__(self, zone: Zone) -> None:
        self.zone, self.soa = zone, zone.soa.rdata[0]
        self._nodes: dict[Name, dict[int, _Records]] = {}

    def node(self, name: Name) -> dict[int, _Records]:
        """Return the mutable, non-empty RRsets at *name*, keyed by type."""
        found = self._nodes.get(name)
        if found is None:
            found = self._nodes[name] = {
                rdtype: _Records(rrset.ttl, {rdatas.folded(rdtype, each): each for each in rrset.rdata})
                for rdtype, rrset in (self.zone.node(name) or {}).items()
            }
        return found

    def add(self, entry: Entry) -> None:
        """Add one record (RFC 2136 section 3.4.2.2)."""
        node, rdtype = self.node(entry.name), entry.rdtype
        if rdtype == rdtypes.SOA:
            if entry.name == self.zone.apex and is_newer(serial_of(entry.rdata), serial_of(self.soa)):
                self.soa = entry.rdata
            return
        if (rdtype == rdtypes.CNAME and node.keys() - {rdtype}) or (rdtype != rdtypes.CNAME and rdtypes.CNAME in node):
            return
        records = node.setdefault(rdtype, _Records())
        if rdtype in _SINGLE:
            records.data.clear()
        records.ttl = entry.ttl if entry.ttl <= MAX_TTL else 0
        records.data[rdatas.folded(rdtype, entry.rdata)] = entry.rdata

    def delete(self, entry: Entry) -> None:
        """Delete one record, an RRset, or all RRsets of a name (RFC 2136 sections 3.4.2.3 and 3.4.2.4)."""
        node, apex = self.node(entry.name), entry.name == self.zone.apex
        if entry.rdclass == _ANY:
            for rdtype in [entry.rdtype] if entry.rdtype != _ANY else list(node):
                if not (apex and rdtype in _KEPT):
                    node.pop(rdtype, None)
            return
        records = node.get(entry.rdtype)
        if records is None or entry.rdtype == rdtypes.SOA:
            return
        if apex and entry.rdtype == rdtypes.NS and len(records.data) == 1:
            return
        records.data.pop(rdatas.folded(entry.rdtype, entry.rdata), None)
        if not records.data:
            del node[entry.rdtype]

    def change(self) -> Change | None:
        """Return the difference between the zone and this draft; None if there is none (RFC 2136 section 3.6)."""
        zone, deleted, added = self.zone, list[Record](), list[Record]()
        for name, node in self._nodes.items():
            before = zone.node(name) or {}
            for rdtype in dict.fromkeys((*before, *node)):
                if rdtype == rdtypes.SOA:
                    continue
                old, new = before.get(rdtype), node.get(rdtype)
                was = [] if old is None else [Record(name, rdtype, old.ttl, each) for each in old.rdata]
                now = [] if new is None else [Record(name, rdtype, new.ttl, each) for each in new.data.values()]
                deleted += [record for record in was if record not in now]
                added += [record for record in now if record not in was]
        old_soa = Record(zone.apex, rdtypes.SOA, zone.soa.ttl, zone.soa.rdata[0])
        if self.soa == old_soa.rdata:
            if not deleted and not added:
                return None
            self.soa = with_serial(self.soa, next_serial(zone.serial))
        return Change(old_soa, old_soa._replace(rdata=self.soa), tuple(deleted), tuple(added))


def changed(zone: Zone, request: Request, permitted: Permitted) -> Change | None:
    """Return the change that *request* makes to *zone*; None if it has no effect.

    Raises:
        UpdateError: a prerequisite is not met, the request is malformed, or a change is not permitted.
    """
    draft = _Draft(zone)
    _check_prerequisites(draft, request.answer)
    for entry in request.authority:
        _check(zone, entry)
    for entry in request.authority:
        _permit(draft, entry, permitted)
        if entry.rdclass == _IN:
            draft.add(entry)
        else:
            draft.delete(entry)
    return draft.change()


def _check_prerequisites(draft: _Draft, entries: tuple[Entry, ...]) -> None:
    """Check every prerequisite (RFC 2136 section 3.2)."""
    wanted: dict[tuple[Name, int], set[bytes]] = {}
    for entry in entries:
        name, rdtype = entry.name, entry.rdtype
        if entry.ttl or (entry.rdclass in {_ANY, _NONE} and entry.rdata):
            raise UpdateError(FORMERR, f"expected TTL 0 and no data in the prerequisite on {name}")
        if not name.is_below(draft.zone.apex):
            raise UpdateError(NOTZONE, f"expected prerequisites in {draft.zone.apex}, got {name}")
        node, shown = draft.node(name), f"{name} {rdtypes.to_text(rdtype)}"
        present = bool(node) if rdtype == _ANY else rdtype in node
        if entry.rdclass == _ANY:
            if not present:
                raise UpdateError(NXDOMAIN if rdtype == _ANY else NXRRSET, f"expected {shown} to exist")
        elif entry.rdclass == _NONE:
            if present:
                raise UpdateError(YXDOMAIN if rdtype == _ANY else YXRRSET, f"expected {shown} not to exist")
        elif entry.rdclass == _IN and rdtype not in rdtypes.META:
            wanted.setdefault((name, rdtype), set()).add(rdatas.folded(rdtype, entry.rdata))
        else:
            raise UpdateError(FORMERR, f"expected class IN, ANY or NONE in the prerequisite on {shown}")
    for (name, rdtype), data in wanted.items():
        records = draft.node(name).get(rdtype)
        if records is None or records.data.keys() != data:
            raise UpdateError(NXRRSET, f"expected other records at {name} {rdtypes.to_text(rdtype)}")


def _check(zone: Zone, entry: Entry) -> None:
    """Check one update's syntax; all updates are checked before the first is performed (RFC 2136 section 3.4.1)."""
    name, rdtype, rdclass = entry.name, entry.rdtype, entry.rdclass
    shown = f"{name} {rdtypes.to_text(rdtype)}"
    if not name.is_below(zone.apex):
        raise UpdateError(NOTZONE, f"expected names in {zone.apex}, got {name}")
    if rdclass not in {_IN, _ANY, _NONE}:
        raise UpdateError(FORMERR, f"expected class IN, ANY or NONE, got {rdclass} at {shown}")
    if rdtype in rdtypes.META and not (rdclass == _ANY and rdtype == _ANY):
        raise UpdateError(FORMERR, f"expected a type of data, got {shown}")
    if rdclass != _IN and entry.ttl:
        raise UpdateError(FORMERR, f"expected TTL 0 in the deletion of {shown}")
    if bool(entry.rdata) == (rdclass == _ANY) and (rdclass == _ANY or rdtype in rdtypes.FIELDS):
        raise UpdateError(FORMERR, f"expected {'no data' if rdclass == _ANY else 'data'} at {shown}")
    if rdclass != _ANY and rdtype in rdtypes.FIELDS and not rdatas.fits(rdtype, entry.rdata):
        raise UpdateError(FORMERR, f"expected well-formed data at {shown}")


def _permit(draft: _Draft, entry: Entry, permitted: Permitted) -> None:
    """Check permission for one update; deleting all RRsets of a name requires permission for each of their types."""
    types = [entry.rdtype]
    if entry.rdtype == _ANY:
        types = [each for each in draft.node(entry.name) if not (entry.name == draft.zone.apex and each in _KEPT)]
    for rdtype in types:
        if not permitted(entry.name, rdtype):
            raise UpdateError(REFUSED, f"not permitted: {entry.name} {rdtypes.to_text(rdtype)}")
