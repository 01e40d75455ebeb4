"""A zone: the records at and below one name, down to its delegations (RFC 1034 section 4.2).

A zone is immutable: a change returns a new zone, so no answer reflects a partially applied change. RRsets are stored as
packed bytes, keyed by question (lower-case name, type and class in wire form), which uses a tenth of the memory that
objects would. Callers receive `RRset` objects.
"""

import copy
import heapq
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from dnsmessage import Name, Record, rdtypes
from dnsmessage import rdata as rdatas
from nameserver.changes import Change, next_serial, serial_of, with_serial
from nameserver.errors import ZoneError

#: Start of a packed RRset: whether it has several records, and the TTL.
_HEAD = struct.Struct("!?I")
#: Maximum number of changed RRsets that are checked individually. Each check may scan all names of the zone for
#: descendants; for more RRsets, checking the whole zone is cheaper.
MAX_REVISED = 16

#: Number of names that are sorted in one call; sorting that many takes a few milliseconds.
SLICE = 2048


def kind(rdtype: int) -> bytes:
    """Return the last four bytes of a question in wire form: *rdtype* and class IN."""
    return struct.pack("!HH", rdtype, rdtypes.IN)


def type_of(question: bytes) -> int:
    """Return the record type of a question in wire form; the question's last four bytes are enough."""
    return int.from_bytes(question[-4:-2], "big")


#: Start of a packed RRset with a single record: `_HEAD`, then the length of the RDATA.
_SINGLE = struct.Struct("!?IH")
#: A packed RRset without records.
_NOTHING = _HEAD.pack(False, 0)
_NS, _CNAME, _SOA, _DNAME = map(kind, (rdtypes.NS, rdtypes.CNAME, rdtypes.SOA, rdtypes.DNAME))


@dataclass(frozen=True, slots=True)
class RRset:
    """All records with one name and type; they share one TTL (RFC 2181 section 5.2)."""

    name: Name
    rdtype: int
    #: TTL in seconds.
    ttl: int
    #: RDATA of each record in wire form, with uncompressed names.
    rdata: tuple[bytes, ...]

    @property
    def count(self) -> int:
        """Number of records in the RRset."""
        return len(self.rdata)

    def text(self) -> list[str]:
        """Return each record's RDATA in presentation format."""
        return [rdatas.to_text(self.rdtype, each) for each in self.rdata]

    def names(self) -> list[Name]:
        """Return the target name of each record: the last name in its RDATA (NS, CNAME, MX, SRV, …)."""
        found = (rdatas.names(self.rdtype, each) for each in self.rdata)
        return [names[-1] for names in found if names]


class Zone:
    """The names, RRsets and delegations of one zone.

    Raises:
        ZoneError: no SOA or NS at the apex, other data next to a CNAME, or data below a DNAME.
    """

    def __init__(self, apex: Name, rrsets: dict[bytes, bytes], spellings: dict[bytes, bytes] | None = None) -> None:
        """Create the zone *apex* from packed RRsets keyed by question, and *spellings*; `ZoneBuilder` produces both."""
        self.apex = apex
        #: Owner names with upper-case letters, as entered (RFC 4343 section 4), keyed by lower-case name.
        self.spellings = spellings or {}
        #: RRsets packed by `pack`, keyed by question.
        self.rrsets = rrsets
        #: Record types in the zone, each as returned by `kind`. Listing the RRsets at a name takes one dict lookup per
        #: type.
        self._kinds = tuple(dict.fromkeys(question[-4:] for question in rrsets))
        #: Names without records that exist only because a name below them has records (empty non-terminals, RFC 8020).
        self.empty: set[bytes] = set()
        #: Topmost delegations, which are not below another delegation.
        self.cuts: set[bytes] = set()
        #: Owners of DNAME records.
        self.dnames: set[bytes] = set()
        #: Record count and encoded records of each AXFR message; empty until `transfer.encode` has been called.
        self.encoded: tuple[tuple[int, bytes], ...] = ()
        self._check()
        self._find_empty()
        self._find_cuts()

    def __repr__(self) -> str:
        return f"<Zone {self.apex} serial={self.serial} rrsets={len(self)}>"

    def __len__(self) -> int:
        return len(self.rrsets)

    def __iter__(self) -> Iterator[RRset]:
        """Yield every RRset, in canonical order of owner names.

        The names are sorted in slices, because a single call would block other threads while it sorts a large zone.
        """
        names = [Name(key) for key in {question[:-4] for question in self.rrsets}]
        slices = (sorted(names[at : at + SLICE], key=_order) for at in range(0, len(names), SLICE))
        for name in heapq.merge(*slices, key=_order):
            yield from self._at(self.name(name.key)).values()

    @property
    def soa(self) -> RRset:
        """The SOA RRset at the apex."""
        return unpack(self.apex, rdtypes.SOA, self.rrsets[self.apex.key + _SOA])

    @property
    def serial(self) -> int:
        """The zone's serial number from the SOA record (RFC 1982)."""
        return serial_of(self.soa.rdata[0])

    @property
    def negative_ttl(self) -> int:
        """How long NXDOMAIN and NODATA may be cached, in seconds (RFC 2308 section 3)."""
        return min(self.soa.ttl, int(struct.unpack("!I", self.soa.rdata[0][-4:])[0]))

    def name(self, key: bytes) -> Name:
        """Return the owner name with the lower-case wire form *key*, in the case in which it was entered."""
        return Name(self.spellings.get(key, key))

    def node(self, name: Name) -> dict[int, RRset] | None:
        """Return the RRsets at *name*, keyed by type; {} for an empty non-terminal, None if the name does not exist."""
        found = self._at(name)
        return found if found or name.key in self.empty else None

    def kinds(self, also: Iterable[int] = ()) -> tuple[bytes, ...]:
        """Return the record types of this zone and its earlier versions, and those in *also*, as encoded by `kind`."""
        return tuple(dict.fromkeys((*self._kinds, *map(kind, also))))

    def exists(self, key: bytes) -> bool:
        """Return whether the lower-case name *key*, or any name below it, has records."""
        return key in self.empty or any(key + each in self.rrsets for each in self._kinds)

    def is_alias(self, key: bytes) -> bool:
        """Return whether the lower-case name *key* has a CNAME record."""
        return key + _CNAME in self.rrsets

    def find_cut(self, name: Name) -> RRset | None:
        """Return the NS RRset of the topmost delegation at or above *name*; None if there is none below the apex."""
        found, step = None, name
        while self.cuts and len(step.key) > len(self.apex.key):
            if step.key in self.cuts:
                found = step
            step = step.parent()
        return None if found is None else unpack(found, rdtypes.NS, self.rrsets[found.key + _NS])

    def find_dname(self, name: Name) -> RRset | None:
        """Return the DNAME RRset of the closest ancestor of *name* that has a DNAME record (RFC 6672 section 3.2)."""
        while self.dnames and len(name.key) > len(self.apex.key):
            name = name.parent()
            if name.key in self.dnames:
                return unpack(name, rdtypes.DNAME, self.rrsets[name.key + _DNAME])
        return None

    def closest_encloser(self, name: Name) -> Name:
        """Return *name* if it exists, otherwise its closest existing ancestor (RFC 4592 section 3.3.1)."""
        while not self.exists(name.key):
            name = name.parent()
        return name

    def addresses(self, rrset: RRset) -> list[RRset]:
        """Return the A and AAAA RRsets, including glue, of the target names of *rrset* that are in this zone."""
        return [
            unpack(target, rdtype, packed)
            for target in rrset.names()
            for rdtype in (rdtypes.A, rdtypes.AAAA)
            if (packed := self.rrsets.get(target.key + kind(rdtype))) is not None
        ]

    def replace(self, name: Name, rdtype: int, ttl: int, rdata: Iterable[bytes]) -> "Zone":
        """Return a copy with one RRset replaced (removed if *rdata* is empty) and the serial number incremented.

        A new SOA record gets that serial number, whatever serial number its RDATA contains.
        """
        rrsets, new = dict(self.rrsets), tuple(dict.fromkeys(rdata))
        if rdtype == rdtypes.SOA:
            if name != self.apex or len(new) != 1:
                raise ZoneError("expected any type but SOA, or one SOA record at the apex of the zone")
            rrsets[self.apex.key + _SOA] = pack(ttl, (with_serial(new[0], next_serial(self.serial)),))
            return self._revised(rrsets, [self.apex.key + _SOA], ())
        if new:
            rrsets[name.key + kind(rdtype)] = pack(ttl, new)
        else:
            rrsets.pop(name.key + kind(rdtype), None)
        soa = with_serial(self.soa.rdata[0], next_serial(self.serial))
        rrsets[self.apex.key + _SOA] = pack(self.soa.ttl, (soa,))
        return self._revised(rrsets, [name.key + kind(rdtype)], [name] if new else [])

    def differences(self, newer: "Zone") -> list[bytes]:
        """Return the questions whose RRsets differ between this version of the zone and *newer*."""
        before, after = self.rrsets, newer.rrsets
        found = [question for question, packed in after.items() if before.get(question) != packed]
        return found + [question for question in before if question not in after]

    def diff(self, newer: "Zone") -> Change:
        """Return the change that turns this version of the zone into *newer*."""
        deleted: list[Record] = []
        added: list[Record] = []
        soa = self.apex.key + _SOA
        for question in self.differences(newer):
            if question == soa:
                continue
            before, after = (
                _records(each.name(question[:-4]), question, each.rrsets.get(question)) for each in (self, newer)
            )
            deleted += [record for record in before if record not in after]
            added += [record for record in after if record not in before]
        old_soa, new_soa = (_records(Name(self.apex.key), soa, each.rrsets[soa])[0] for each in (self, newer))
        return Change(old_soa, new_soa, tuple(deleted), tuple(added))

    def apply(self, *changes: Change) -> "Zone":
        """Return the version of the zone after *changes*, oldest first.

        Raises:
            ZoneError: a change starts from another serial number, deletes a missing record or adds an existing one, or
                the result is not a valid zone.
        """
        rrsets, serial, questions = dict(self.rrsets), self.serial, dict[bytes, None]()
        for change in changes:
            if change.apex != self.apex or change.old != serial:
                raise ZoneError(f"expected a change of {self.apex} {serial}, got {change.apex} {change.old}")
            questions.update(dict.fromkeys(self._edit(rrsets, change)))
            soa, serial = change.new_soa, change.new
            rrsets[self.apex.key + _SOA] = pack(soa.ttl, (soa.rdata,))
        return self._revised(rrsets, questions, [record.name for change in changes for record in change.added])

    def _edit(self, rrsets: dict[bytes, bytes], change: Change) -> Iterable[bytes]:
        """Apply *change* to *rrsets*, except for the SOA record; return the questions of the changed RRsets."""
        edited: dict[bytes, tuple[int, dict[bytes, bytes]]] = {}
        for record, adding in (*((each, False) for each in change.deleted), *((each, True) for each in change.added)):
            question = record.name.key + kind(record.rdtype)
            if question not in edited:
                old = unpack(record.name, record.rdtype, rrsets.pop(question, _NOTHING))
                edited[question] = old.ttl, {rdatas.folded(old.rdtype, each): each for each in old.rdata}
            value, records = rdatas.folded(record.rdtype, record.rdata), edited[question][1]
            if (value in records) == adding or not record.name.is_below(self.apex) or record.rdtype == rdtypes.SOA:
                text = f"{record.name} {rdtypes.to_text(record.rdtype)}"
                raise ZoneError(f"{'cannot add' if adding else 'expected to delete'} {text} in serial {change.old}")
            if adding:
                records[value] = record.rdata
                edited[question] = record.ttl, records
            else:
                del records[value]
        for question, (ttl, records) in edited.items():
            if records:
                rrsets[question] = pack(ttl, tuple(records.values()))
        return edited

    def _revised(self, rrsets: dict[bytes, bytes], questions: Collection[bytes], added: Iterable[Name]) -> "Zone":
        """Return a version with *rrsets*, which differ from this version only in *questions* and the SOA record.

        The owner names in *added* keep their upper-case letters.

        If there are few questions and none changes a delegation or DNAME, only the names in *questions* are checked,
        and the sets of cuts and DNAMEs are shared with this version. This makes a change to a large zone cheap.
        """
        spellings = self._respelled(rrsets, questions, added)
        if self.dnames or len(questions) > MAX_REVISED or any(question[-4:] in {_NS, _DNAME} for question in questions):
            return Zone(self.apex, rrsets, spellings)
        new = copy.copy(self)
        new.rrsets, new.spellings, new.encoded, new.empty = rrsets, spellings, (), set(self.empty)
        new._revise(questions)  # noqa: SLF001 - a method of another instance of this class
        return new

    def _respelled(
        self, rrsets: dict[bytes, bytes], questions: Collection[bytes], added: Iterable[Name]
    ) -> dict[bytes, bytes]:
        """Return the owner names with upper-case letters in a version with *rrsets*; see `_revised`."""
        changed = {name.key: spelling(name, self.apex) for name in added}
        changed = {key: wire for key, wire in changed.items() if wire != self.spellings.get(key, key)}
        owners = self.spellings.keys() & {question[:-4] for question in questions}
        if not changed and not owners:
            return self.spellings
        kinds = dict.fromkeys((*self._kinds, *(question[-4:] for question in questions)))
        spellings = self.spellings | changed
        for owner in owners | changed.keys():
            if spellings[owner] == owner or not any(owner + each in rrsets for each in kinds):
                del spellings[owner]
        return spellings

    def _revise(self, questions: Collection[bytes]) -> None:
        """Check the names in *questions*, and update the empty non-terminals."""
        self._kinds = tuple(dict.fromkeys((*self._kinds, *(question[-4:] for question in questions))))
        for owner in {question[:-4] for question in questions}:
            self._check_alias(owner, _CNAME)
            self._settle(owner)

    def _settle(self, owner: bytes) -> None:
        """Update the empty non-terminals at and above *owner* after a change at *owner*."""
        least = len(self.apex.key)
        while len(owner) > least:
            if any(owner + each in self.rrsets for each in self._kinds):
                self.empty.discard(owner)
            elif self._has_descendants(owner):
                if owner in self.empty:
                    return
                self.empty.add(owner)
            else:
                self.empty.discard(owner)
            owner = owner[1 + owner[0] :]

    def _has_descendants(self, owner: bytes) -> bool:
        """Return whether any name below *owner* has records."""
        size, name = len(owner) + 4, Name(owner)
        return any(
            len(question) > size and Name(question[:-4]).is_below(name)
            for question in self.rrsets
            if question[-size:-4] == owner
        )

    def _at(self, name: Name) -> dict[int, RRset]:
        found = ((type_of(each), self.rrsets.get(name.key + each)) for each in self._kinds)
        return {rdtype: unpack(name, rdtype, packed) for rdtype, packed in found if packed is not None}

    def _check(self) -> None:
        apex, rrsets = self.apex, self.rrsets
        soa = rrsets.get(apex.key + _SOA)
        count = 0 if soa is None else unpack(apex, rdtypes.SOA, soa).count
        if count != 1:
            raise ZoneError(f"expected one SOA record at {apex}, got {count or 'none'}")
        if apex.key + _NS not in rrsets:
            raise ZoneError(f"expected NS records at {apex}, got none")
        for question in self._owning(_SOA):
            if question != apex.key:
                raise ZoneError(f"expected SOA at {apex} only, got one at {Name(question)}")
        for end in (_CNAME, _DNAME):
            for owner in self._owning(end):
                self._check_alias(owner, end)

    def _check_alias(self, owner: bytes, end: bytes) -> None:
        """Check the rules for a CNAME or DNAME at *owner*; *end* is that type as returned by `kind`."""
        packed = self.rrsets.get(owner + end)
        if packed is None:
            return
        mnemonic, types = "CNAME" if end == _CNAME else "DNAME", self._at(Name(owner))
        crowd = len(types) > 1 if end == _CNAME else rdtypes.CNAME in types
        if crowd or packed[0]:
            others = ", ".join(sorted(map(rdtypes.to_text, types))) if crowd else f"two {mnemonic} records"
            raise ZoneError(f"expected nothing next to the {mnemonic} at {Name(owner)}, got {others}")

    def _owning(self, end: bytes) -> list[bytes]:
        """Return the names, in wire form, that have an RRset of one type; *end* is that type as returned by `kind`."""
        if end not in self._kinds:
            return []
        return [question[:-4] for question in self.rrsets if question[-4:] == end]

    def _find_empty(self) -> None:
        least, before = len(self.apex.key), b""
        for question in self.rrsets:
            above = question[1 + question[0] : -4]
            if above == before:
                continue
            before = above
            while len(above) > least and not self.exists(above):
                self.empty.add(above)
                above = above[1 + above[0] :]

    def _find_cuts(self) -> None:
        least = len(self.apex.key)
        cuts = {owner for owner in self._owning(_NS) if len(owner) > least}
        for owner in cuts:
            above = owner[1 + owner[0] :]
            while len(above) > least and above not in cuts:
                above = above[1 + above[0] :]
            if len(above) <= least:
                self.cuts.add(owner)
        self.dnames.update(self._owning(_DNAME))
        for question in self.rrsets if self.dnames else ():
            name = Name(question[:-4])
            if (found := self.find_dname(name)) is not None:
                raise ZoneError(f"expected nothing below the DNAME at {found.name}, got {name}")


def _order(name: Name) -> tuple[bytes, ...]:
    """Return the sort key of a name in canonical order (RFC 4034 section 6.1)."""
    return name.labels[::-1]


def spelling(owner: Name, apex: Name) -> bytes:
    """Return *owner* in wire form: the labels below *apex* as entered, those of *apex* in lower case.

    Zone transfers compress the labels of the apex.
    """
    return owner.wire[: -len(apex.key)] + apex.key


class ZoneBuilder:
    """Collects single records into packed RRsets."""

    def __init__(self, apex: Name) -> None:
        self.apex = apex
        self._rrsets: dict[bytes, bytes] = {}
        self._spellings: dict[bytes, bytes] = {}
        #: RRsets with more than one record: the lowest TTL and the RDATA values, keyed by question.
        self._many: dict[bytes, tuple[int, dict[bytes, None]]] = {}

    def add(self, question: bytes, ttl: int, rdata: bytes) -> None:
        """Add one record at or below the apex; *question* is its owner name in lower case, its type and its class."""
        old = self._rrsets.get(question)
        if old is None:
            self._rrsets[question] = _SINGLE.pack(False, ttl, len(rdata)) + rdata
            return
        least, found = self._many.get(question) or (ttl, dict.fromkeys(unpack(self.apex, 0, old).rdata))
        found[rdata] = None
        self._many[question] = min(least, ttl, unpack_ttl(old)), found

    def spell(self, owner: Name) -> None:
        """Remember in which case the owner name was entered."""
        if (wire := spelling(owner, self.apex)) != owner.key:
            self._spellings[owner.key] = wire

    def zone(self) -> Zone:
        """Return the finished zone; raise `ZoneError` if the records do not form a valid zone."""
        for question, (ttl, found) in self._many.items():
            self._rrsets[question] = pack(ttl, tuple(found))
        self._many.clear()
        return Zone(self.apex, self._rrsets, self._spellings)


def pack(ttl: int, rdata: tuple[bytes, ...]) -> bytes:
    """Return an RRset as bytes: `_HEAD`, then each RDATA with a two-byte length prefix."""
    return _HEAD.pack(len(rdata) > 1, ttl) + b"".join(len(each).to_bytes(2, "big") + each for each in rdata)


def _records(owner: Name, question: bytes, packed: bytes | None) -> list[Record]:
    """Unpack an RRset into records of *owner*; *question* is its key. Return an empty list if *packed* is None."""
    rrset = unpack(owner, type_of(question), packed or _NOTHING)
    return [Record(rrset.name, rrset.rdtype, rrset.ttl, each) for each in rrset.rdata]


def unpack_ttl(packed: bytes) -> int:
    """Return the TTL of a packed RRset, in seconds."""
    return int.from_bytes(packed[1:5], "big")


def unpack(name: Name, rdtype: int, packed: bytes) -> RRset:
    """Return the RRset with the owner *name* and type *rdtype* from *packed*, as produced by `pack`."""
    rdata, at = [], _HEAD.size
    while at < len(packed):
        end = at + 2 + int.from_bytes(packed[at : at + 2], "big")
        rdata.append(packed[at + 2 : end])
        at = end
    return RRset(name, rdtype, unpack_ttl(packed), tuple(rdata))
