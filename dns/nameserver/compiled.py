"""Compile a zone into prebuilt answers: response bodies that are encoded before the first query.

An existing name and type has exactly one body. A referral, NXDOMAIN, NODATA or wildcard answer is the same for every
name below its anchor (the cut, apex or closest encloser), except that compression pointers depend on the length of the
question's name; `Tail` adjusts them. Wildcard CNAMEs, DNAME, ANY and truncated answers are not compiled:
`nameserver.answer` handles them per query.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from dnsmessage import Name, rdtypes, suffixes
from dnsmessage.message import AA, HEADER, NOERROR, NXDOMAIN, QR
from nameserver.answer import Answer, answer, count, negative, write
from nameserver.zone import Zone, kind, type_of
from serving import Answers

#: Maximum size of a `Tail` body, in bytes. Pointers in a larger body could exceed their 14 bits.
MAX_TAIL = 8192
#: Record types that `nameserver.answer` has to look up, because they need name compression, additional addresses or the
#: rules for zone cuts.
_BY_LADDER = rdtypes.COMPRESSIBLE | {rdtypes.SRV, rdtypes.DS}
#: Record types compiled for every CNAME, even if its target has no records of the type.
COMMON = (rdtypes.A, rdtypes.AAAA)
_CNAME, _LADDER_KINDS = kind(rdtypes.CNAME), frozenset(map(kind, _BY_LADDER))
#: Changes leave obsolete bodies in memory. The whole zone is recompiled when the total size of the obsolete bodies
#: exceeds the size of the compiled zone by this many bytes.
SLACK = 1 << 20


@dataclass(slots=True)
class Tail:
    """The encoded sections of a response that is the same for every question below one name, the anchor."""

    rcode: int
    authoritative: bool
    counts: tuple[int, int, int]
    #: Length of the anchor on the wire, in bytes.
    anchor: int
    #: Offsets of the compression pointers in `body`, which is encoded for a question name two bytes longer than the
    #: anchor.
    pointers: tuple[int, ...]
    body: bytes
    #: Cache of adjusted bodies, keyed by the length of the question's name. Only the two negative answers use it: a
    #: zone may have any number of cuts, and caching the bodies of all referrals would take too much memory.
    moved: dict[int, bytes] | None = None

    def at(self, length: int) -> bytes:
        """Return the body for a question name of *length* bytes on the wire."""
        if self.moved is not None and length in self.moved:
            return self.moved[length]
        body, by = bytearray(self.body), length - self.anchor - 2
        for pointer in self.pointers:
            (old,) = struct.unpack_from("!H", body, pointer)
            struct.pack_into("!H", body, pointer, old + by)
        if self.moved is not None:
            self.moved[length] = bytes(body)
        return bytes(body)


@dataclass(slots=True)
class Compiled:
    """A zone with its prebuilt answers."""

    zone: Zone
    answers: Answers
    #: The NODATA answer, which carries the zone's SOA record.
    nodata: Tail
    #: The NXDOMAIN answer, which carries the zone's SOA record.
    nxdomain: Tail
    #: Referrals, keyed by zone cut; None: `nameserver.answer` has to handle questions below this zone cut.
    referrals: dict[bytes, Tail | None] = field(default_factory=dict)
    #: Wildcard answers, keyed by closest encloser and type; None: `nameserver.answer` has to handle questions below
    #: this name.
    wildcards: dict[bytes, dict[int, Tail] | None] = field(default_factory=dict)
    #: Size of all bodies when the whole zone was last compiled, in bytes.
    full: int = 0

    def find(self, qname: bytes, qtype: int) -> Tail | None:
        """Return the `Tail` for a question that has no prebuilt answer of its own.

        *qname* is in lower case, at or below the apex. Returns None if `nameserver.answer` has to handle the question.
        """
        zone, encloser = self.zone, b""
        least = len(zone.apex.key)
        cut: bytes | None = None
        for suffix in suffixes(qname):
            if len(suffix) < least:
                break
            if suffix in self.referrals and not (suffix == qname and qtype == rdtypes.DS):
                cut = suffix
            if not encloser and zone.exists(suffix):
                encloser = suffix
        if cut is not None:
            return self.referrals[cut]
        if encloser == qname:
            if qtype == rdtypes.ANY or zone.is_alias(qname):
                return None
            return self.nodata
        if zone.dnames:
            return None
        if encloser in self.wildcards:
            types = self.wildcards[encloser]
            return None if types is None or qtype == rdtypes.ANY else types.get(qtype, self.nodata)
        return self.nxdomain


def compile_zone(zone: Zone) -> Compiled:
    """Return *zone* with all its RRsets, zone cuts, wildcards and negative answers compiled."""
    compiled = _framed(zone, Answers(QR | AA))
    _add(compiled, zone.rrsets)
    compiled.full = compiled.answers.size
    return compiled


def recompile_zone(old: Compiled, zone: Zone) -> Compiled:
    """Return *zone* compiled, reusing the answers of the previous version *old* that the change cannot affect.

    All answers at changed names are recompiled. So are all answers that depend on records at other names: those with
    additional addresses, CNAME chains, wildcard answers and referrals.
    """
    if zone.cuts is not old.zone.cuts or zone.dnames is not old.zone.dnames or old.answers.size > 2 * old.full + SLACK:
        return compile_zone(zone)
    compiled = _framed(zone, old.answers.copy())
    compiled.full = old.full
    kinds, answers = zone.kinds(COMMON), compiled.answers
    owners = {question[:-4] for question in old.zone.differences(zone)}
    owners.update(q[:-4] for each in (zone, old.zone) for q in each.rrsets if q[-4:] == _CNAME or q[:2] == b"\x01*")
    for owner in owners:
        for each in kinds:
            answers.drop(owner + each)
    _add(compiled, (q for q in zone.rrsets if q[-4:] in _LADDER_KINDS or q[:-4] in owners))
    return compiled


def _framed(zone: Zone, answers: Answers) -> Compiled:
    """Return *zone* with negative answers and referrals compiled; *answers* are used unchanged."""
    soa = (negative(zone),)
    nodata, nxdomain = (Answer(rcode, True, zone.apex, (), soa) for rcode in (NOERROR, NXDOMAIN))
    compiled = Compiled(zone, answers, _some(nodata), _some(nxdomain))
    for cut in zone.cuts:
        compiled.referrals[cut] = _tail(answer(zone, _stranger(zone, Name(cut)), rdtypes.A))
    compiled.wildcards.update({key[2:]: {} for key in zone.empty if key[:2] == b"\x01*"})
    return compiled


def _add(compiled: Compiled, questions: Iterable[bytes]) -> None:
    """Precompile the RRset that answers each question in *questions*, except for names below a zone cut."""
    zone = compiled.zone
    below = _Below(zone)
    for question in questions:
        if zone.cuts and below(question):
            continue
        if question[:2] == b"\x01*":
            encloser = Name(question[2:-4])
            if encloser.key not in compiled.wildcards:
                compiled.wildcards[encloser.key] = _wildcard(zone, encloser)
        _exact(compiled, question, zone.rrsets[question])


def _exact(compiled: Compiled, question: bytes, packed: bytes) -> None:
    """Compile one packed RRset that is not below a zone cut."""
    rdtype = type_of(question)
    if rdtype == rdtypes.CNAME:
        _alias(compiled, Name(question[:-4]))
    elif rdtype in _BY_LADDER or compiled.zone.cuts:
        # DS records at the apex belong to the parent zone, which may be served here too (RFC 4035 section 3.1.4.1).
        if rdtype != rdtypes.DS or len(question) - 4 != len(compiled.zone.apex.key):
            _ladder(compiled, Name(question[:-4]), rdtype)
    else:
        body, records = b"\xc0\x0c" + question[-4:] + packed[1:], 1
        if packed[0]:
            head, body, records, at = body[:10], b"", 0, 5
            while at < len(packed):
                end = at + 2 + int.from_bytes(packed[at : at + 2], "big")
                body += head + packed[at:end]
                at, records = end, records + 1
        compiled.answers.add(question, (records, 0, 0), body)


def _ladder(compiled: Compiled, name: Name, qtype: int) -> None:
    """Compile the answer that `nameserver.answer` gives for *name* and *qtype*."""
    content = answer(compiled.zone, name, qtype)
    if content.authoritative and content.rcode == 0 and content.anchor == name:
        question = name.wire + struct.pack("!HH", qtype, 1)
        writer = write(question, content, content.additional)
        if len(writer.body) + len(question) + HEADER.size + 11 <= 65_535:
            counts = count(content.answer), count(content.authority), count(content.additional)
            compiled.answers.add(name.key + question[-4:], counts, bytes(writer.body))


def _alias(compiled: Compiled, name: Name) -> None:
    """Compile the answers at a CNAME, for the types in `COMMON` and every type at the end of the CNAME chain."""
    zone = compiled.zone
    qtypes = {rdtypes.CNAME, *COMMON}
    content = answer(zone, name, rdtypes.A)
    target = (
        Name(content.answer[-1].rdata[0]) if content.answer[-1].rdtype == rdtypes.CNAME else content.answer[-1].name
    )
    qtypes.update(zone.node(target) or () if target.is_below(zone.apex) else ())
    for qtype in qtypes:
        _ladder(compiled, name, qtype)


def _wildcard(zone: Zone, encloser: Name) -> dict[int, Tail] | None:
    """Return the answers of the wildcard below *encloser*, keyed by type.

    Returns None if the wildcard is a CNAME or one of its answers is too large.
    """
    node = zone.node(Name(b"\x01*" + encloser.wire)) or {}
    if rdtypes.CNAME in node:
        return None
    stranger = _stranger(zone, encloser)
    tails = {qtype: _tail(answer(zone, stranger, qtype), stranger) for qtype in node}
    return None if None in tails.values() else {qtype: tail for qtype, tail in tails.items() if tail is not None}


def _tail(content: Answer, name: Name | None = None) -> Tail | None:
    anchor = content.anchor
    name = Name(b"\x01x" + anchor.wire) if name is None else name
    writer = write(name.wire + b"\0\1\0\1", content, content.additional)
    if len(writer.body) > MAX_TAIL:
        return None
    counts = count(content.answer), count(content.authority), count(content.additional)
    body = bytes(writer.body)
    return Tail(content.rcode, content.authoritative, counts, len(anchor.wire), tuple(writer.pointers), body)


def _some(content: Answer) -> Tail:
    tail = _tail(content)
    assert tail is not None  # noqa: S101 - a single SOA record always fits in MAX_TAIL
    tail.moved = {}
    return tail


def _stranger(zone: Zone, anchor: Name) -> Name:
    """Return a name that does not exist in *zone*: *anchor* with one additional label of one byte."""
    return next(
        name for byte in range(256) if not zone.exists((name := Name(bytes((1, byte)) + anchor.wire)).key)
    )  # fmt: skip


class _Below:
    """Callable that returns whether the name in a question is below a zone cut."""

    def __init__(self, zone: Zone) -> None:
        self._cuts, self._least = zone.cuts, len(zone.apex.key)

    def __call__(self, question: bytes) -> bool:
        above = question[1 + question[0] : -4]
        while len(above) > self._least:
            if above in self._cuts:
                return True
            above = above[1 + above[0] :]
        return False
