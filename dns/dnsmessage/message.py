"""Encode and decode DNS messages (RFC 1035 section 4.1, EDNS RFC 6891) in time linear in the message size.

Three rules keep decoding linear: each name is decoded once per offset, compression pointers must point backwards and at
most `MAX_HOPS` are followed in a row, and a message has at most `MAX_RECORDS` records. RDATA that contains names is
decompressed; all other RDATA is kept byte for byte.
"""

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from dnsmessage import rdtypes
from dnsmessage.errors import MismatchError, RemoteError
from dnsmessage.name import MAX_NAME, Name

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, YXDOMAIN, YXRRSET, NXRRSET, NOTAUTH, NOTZONE = range(11)
BADVERS, BADCOOKIE = 16, 23
_RCODES = (
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH",
    "NOTZONE", "DSOTYPENI", "RCODE12", "RCODE13", "RCODE14", "RCODE15", "BADVERS", "BADKEY", "BADTIME", "BADMODE",
    "BADNAME", "BADALG", "BADTRUNC", "BADCOOKIE",
)  # fmt: skip
QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
DO = 0x8000
#: Maximum UDP payload that we send and advertise, in bytes. A datagram of this size fits every common path MTU and is
#: never fragmented (DNS flag day 2020).
PAYLOAD = 1232
#: Maximum UDP response for a client without EDNS, in bytes (RFC 1035 section 4.2.1).
PLAIN_UDP = 512
MAX_TCP = 65_535
#: Maximum number of compression pointers followed in a row. A name has at most 127 labels, so it never needs more.
MAX_HOPS = 127
#: Maximum number of records in one message. The smallest useful record is an A record with a compressed owner name;
#: a message of 65,535 bytes holds 4,095 of them.
MAX_RECORDS = 4096
#: Maximum TTL in seconds; a TTL with the top bit set counts as 0 (RFC 2181 section 8).
MAX_TTL = 2**31 - 1

_EXACT, _LAYOUTS = rdtypes.EXACT, rdtypes.LAYOUTS
HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")


class Record(NamedTuple):
    """One resource record of class IN.  It is a tuple to save memory: a message may hold thousands."""

    name: Name
    rdtype: int
    #: TTL in seconds, at most `MAX_TTL`.
    ttl: int
    #: RDATA in wire form, with uncompressed names.
    rdata: bytes


@dataclass(frozen=True, slots=True)
class Edns:
    """The contents of an OPT record (RFC 6891 section 6.1)."""

    #: Maximum UDP payload that the sender accepts, in bytes.
    payload: int
    version: int = 0
    #: Upper eight bits of the 12-bit response code.
    extended: int = 0
    dnssec_ok: bool = False
    options: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """A decoded query: header fields, question and EDNS settings."""

    ident: int
    flags: int
    #: The question in wire form; a response repeats it unchanged, including upper and lower case.
    question: bytes
    qname: Name
    qtype: int
    qclass: int
    edns: Edns | None

    def limit(self, *, udp: bool) -> int:
        """Return the maximum size of the response to this query, in bytes."""
        if not udp:
            return MAX_TCP
        return PLAIN_UDP if self.edns is None else min(max(self.edns.payload, PLAIN_UDP), PAYLOAD)


@dataclass(frozen=True, slots=True)
class Message:
    """A decoded reply from a server."""

    rcode: int
    flags: int
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    edns: Edns | None = field(default=None, compare=False)

    @property
    def authoritative(self) -> bool:
        """Whether the AA (authoritative answer) flag is set."""
        return bool(self.flags & AA)

    @property
    def truncated(self) -> bool:
        """Whether the TC (truncated) flag is set."""
        return bool(self.flags & TC)


def rcode_to_text(rcode: int) -> str:
    """Return the mnemonic of *rcode*, for example ``NXDOMAIN`` for 3; ``RCODE<number>`` if it has none."""
    return _RCODES[rcode] if rcode < len(_RCODES) else f"RCODE{rcode}"


class _Reader:
    """A cursor over one message that caches the names it has decoded, keyed by offset."""

    def __init__(self, wire: bytes, at: int = HEADER.size) -> None:
        self.wire, self.at = wire, at
        self._names: dict[int, Name] = {}

    def name(self) -> Name:
        """Decode the name at the cursor and advance past it."""
        start, wire = self.at, self.wire
        if wire[start] >= 0xC0:  # most owner names are a single pointer
            self.at = start + 2
            known = self._names.get((wire[start] & 0x3F) << 8 | wire[start + 1])
        else:
            self.at = self._end(start)
            known = self._names.get(start)  # already decoded if an earlier pointer refers to this offset
        return known or self._resolve(start)

    def _end(self, at: int) -> int:
        wire = self.wire
        while True:
            length = wire[at]
            if not length:
                return at + 1
            if length >= 0xC0:
                return at + 2
            if length > 63:
                raise RemoteError("expected a label or a pointer in a name")
            at += 1 + length

    def _resolve(self, start: int) -> Name:
        """Return the name at *start*, following compression pointers; every name on the way is cached by offset."""
        wire, parts, at, hops = self.wire, list[tuple[int, bytes]](), start, 0
        tail = b"\0"
        while True:
            begin, length = at, wire[at]
            while 0 < length < 64:
                at += 1 + length
                length = wire[at]
            parts.append((begin, wire[begin:at]))
            if not length:
                break
            if length < 0xC0:
                raise RemoteError("expected a label or a pointer in a name")
            target = (length & 0x3F) << 8 | wire[at + 1]
            if target >= begin or target < HEADER.size:
                raise RemoteError("expected a compression pointer that leads backwards")
            hops += 1
            if hops > MAX_HOPS:
                raise RemoteError(f"expected at most {MAX_HOPS} compression pointers in a row")
            known = self._names.get(target)
            if known is not None:
                tail = known.wire
                break
            at = target
        name = Name(tail)
        for begin, labels in reversed(parts):
            if labels:
                name = Name(labels + name.wire)
            if len(name.wire) > MAX_NAME:
                raise RemoteError(f"expected names of at most {MAX_NAME} bytes")
            self._names[begin] = name
        return name

    def record(self) -> tuple[Name, int, int, int, bytes]:
        """Decode one record and return its owner, type, class, TTL and RDATA."""
        owner, wire = self.name(), self.wire
        rdtype, rdclass, ttl, length = _RECORD.unpack_from(wire, self.at)
        start = self.at + 10
        end = self.at = start + length
        if end > len(wire):
            raise RemoteError("a record is cut short")
        if rdclass == rdtypes.IN or (rdclass == rdtypes.NONE and length):  # class NONE: an UPDATE deletes the record
            if rdtype in _EXACT and length != _EXACT[rdtype]:
                raise RemoteError(f"expected {_EXACT[rdtype]} bytes of {rdtypes.to_text(rdtype)}, got {length}")
            if rdtype in _LAYOUTS:
                return owner, rdtype, rdclass, ttl, self._rdata(rdtype, start, end)
        return owner, rdtype, rdclass, ttl, wire[start:end]

    def _rdata(self, rdtype: int, start: int, end: int) -> bytes:
        """Return the RDATA between *start* and *end* with its names decompressed."""
        wire, parts, self.at = self.wire, [], start
        for step in rdtypes.LAYOUTS[rdtype]:
            if step == "name":
                parts.append(self.name().wire)
                continue
            size = 1 + wire[self.at] if step == "str" else int(step)
            parts.append(wire[self.at : self.at + size])
            self.at += size
        if self.at > end or (rdtype in rdtypes.COMPRESSIBLE and rdtype != rdtypes.SOA and self.at != end):
            raise RemoteError(f"expected {rdtypes.to_text(rdtype)} to fill its RDATA")
        if rdtype == rdtypes.SOA and end - self.at != 20:
            raise RemoteError("expected five numbers at the end of SOA")
        parts.append(wire[self.at : end])
        self.at = end
        return b"".join(parts)

    def opt(self, owner: Name, rdclass: int, ttl: int, rdata: bytes) -> Edns:
        """Decode an OPT record."""
        if owner.wire != b"\0":
            raise RemoteError("expected the OPT record at the root")
        options, at = [], 0
        while at < len(rdata):
            code, size = struct.unpack_from("!HH", rdata, at)
            if at + 4 + size > len(rdata):
                raise RemoteError("an EDNS option is cut short")
            options.append((code, rdata[at + 4 : at + 4 + size]))
            at += 4 + size
        return Edns(rdclass, ttl >> 16 & 0xFF, ttl >> 24, bool(ttl & DO), tuple(options))


def decode_query(wire: bytes) -> Query:
    """Decode a query of at least 12 bytes.

    Raises:
        RemoteError: the query is invalid; its rcode is NOTIMP for an unsupported opcode, FORMERR otherwise.
    """
    ident, flags, questions, answers, authorities, additionals = HEADER.unpack_from(wire)
    if flags >> 11 & 0xF:
        raise RemoteError(f"expected opcode QUERY, got {flags >> 11 & 0xF}", NOTIMP)
    try:
        # An IXFR query carries the client's SOA record in the authority section (RFC 1995 section 3).
        if questions != 1 or answers or authorities > 1 or additionals > MAX_RECORDS:
            raise RemoteError("expected one question and nothing else")
        reader = _Reader(wire)
        end = reader._end(HEADER.size)  # noqa: SLF001 - a class of the same module
        qname = reader.name()
        if len(qname.wire) != end - HEADER.size:
            raise RemoteError("expected a question without compression")
        qtype, qclass = struct.unpack_from("!HH", wire, end)
        if authorities and qtype != rdtypes.IXFR:
            raise RemoteError("expected one question and nothing else")
        reader.at, edns = end + 4, None
        for _ in range(authorities + additionals):
            owner, rdtype, rdclass, ttl, rdata = reader.record()
            if rdtype == rdtypes.OPT:
                if edns is not None:
                    raise RemoteError("expected at most one OPT record")
                edns = reader.opt(owner, rdclass, ttl, rdata)
    except (IndexError, struct.error):
        raise RemoteError("the message is cut short") from None
    return Query(ident, flags, wire[HEADER.size : end + 4], qname, qtype, qclass, edns)


def encode_query(
    ident: int, qname: Name, qtype: int, *, recursive: bool = False, edns: bool = True, options: bytes = b""
) -> bytes:
    """Encode a query of class IN; unless *edns* is False, add an OPT record (EDNS version 0) with *options*."""
    head = HEADER.pack(ident, RD if recursive else 0, 1, 0, 0, edns)
    return head + qname.wire + struct.pack("!HH", qtype, rdtypes.IN) + (encode_opt(options=options) if edns else b"")


def encode_opt(rcode: int = 0, *, dnssec_ok: bool = False, options: bytes = b"") -> bytes:
    """Encode an OPT record for EDNS version 0 that advertises `PAYLOAD`; it carries the upper bits of *rcode*."""
    return (
        struct.pack("!BHHBBHH", 0, rdtypes.OPT, PAYLOAD, rcode >> 4, 0, DO if dnssec_ok else 0, len(options)) + options
    )


def question_end(wire: bytes) -> int:
    """Return the offset just after the question; the question's name must be uncompressed."""
    at = HEADER.size
    while wire[at]:
        at += 1 + wire[at]
    return at + 5


def find_opt(wire: bytes | bytearray) -> int | None:
    """Return the offset of the OPT record in the additional section; None if there is none or *wire* is malformed."""
    try:
        _, _, questions, answers, authorities, additionals = HEADER.unpack_from(wire)
        at = HEADER.size
        for number in range(questions + answers + authorities + additionals if additionals else 0):
            start = at
            while 0 < wire[at] < 64:
                at += 1 + wire[at]
            at += 2 if wire[at] else 1
            if number < questions:
                at += 4
                continue
            rdtype, _, _, length = _RECORD.unpack_from(wire, at)
            if rdtype == rdtypes.OPT and number >= questions + answers + authorities:
                return start
            at += 10 + length
    except (IndexError, struct.error):
        pass
    return None


def decode_reply(sent: bytes, received: bytes) -> Message:
    """Decode the reply to our query *sent*.

    Raises:
        MismatchError: *received* is not the reply to *sent*. It may be forged, so keep waiting (RFC 5452).
        RemoteError: the ID and question match, but the rest of the reply is malformed.
    """
    if len(received) < HEADER.size or received[:2] != sent[:2] or not received[2] & 0x80:
        raise MismatchError("not a reply to this query")
    _, flags, questions, *counts = HEADER.unpack_from(received)
    rcode = flags & 0xF
    if len(received) == HEADER.size and not questions and rcode:
        return Message(rcode, flags)  # servers without EDNS support may send an error without a question
    end = question_end(sent)
    if (
        questions != 1
        or received[12 : end - 4].lower() != sent[12 : end - 4].lower()
        or received[end - 4 : end] != sent[end - 4 : end]
    ):
        raise MismatchError("a reply to another question")
    if sum(counts) > MAX_RECORDS:
        raise RemoteError(f"expected at most {MAX_RECORDS} records, got {sum(counts)}")
    reader = _Reader(received)
    sections: list[tuple[Record, ...]] = []
    edns = None
    try:
        reader.name()
        reader.at = end
        for count in counts:
            records = []
            for _ in range(count):
                owner, rdtype, rdclass, ttl, rdata = reader.record()
                if rdtype == rdtypes.OPT:
                    edns = reader.opt(owner, rdclass, ttl, rdata)
                elif rdclass == rdtypes.IN:
                    records.append(Record(owner, rdtype, ttl if ttl <= MAX_TTL else 0, rdata))
            sections.append(tuple(records))
    except (IndexError, struct.error):
        raise RemoteError("the reply is cut short") from None
    answer, authority, additional = sections
    return Message(rcode | (edns.extended << 4 if edns is not None else 0), flags, answer, authority, additional, edns)


def decode_part(sent: bytes, received: bytes) -> tuple[int, tuple[Record, ...]]:
    """Decode one message of the answer to the zone transfer query *sent*; return its rcode and its answer records.

    Later messages may omit the question (RFC 5936 section 2.2.1). Sections other than the answer are ignored.

    Raises:
        MismatchError: the message is not a reply to this query.
        RemoteError: the message is malformed, truncated, or has a record of a class other than IN.
    """
    if len(received) < HEADER.size or received[:2] != sent[:2] or not received[2] & 0x80:
        raise MismatchError("expected a reply to this query")
    _, flags, questions, answers, _, _ = HEADER.unpack_from(received)
    end = question_end(sent)
    if questions > 1 or (questions and received[12:end].lower() != sent[12:end].lower()):
        raise MismatchError("expected a reply to this question")
    if flags & TC:
        raise RemoteError("expected a whole message, got one with TC set")
    reader = _Reader(received)
    records = []
    try:
        if questions:
            reader.name()
            reader.at = end
        for _ in range(answers):
            owner, rdtype, rdclass, ttl, rdata = reader.record()
            if rdclass != rdtypes.IN:
                raise RemoteError(f"expected records of class IN, got class {rdclass} at {owner}")
            records.append(Record(owner, rdtype, ttl if ttl <= MAX_TTL else 0, rdata))
    except (IndexError, struct.error):
        raise RemoteError("a message of the transfer is cut short") from None
    return flags & 0xF, tuple(records)


def error_response(wire: bytes, rcode: int, flags: int = 0) -> bytes:
    """Encode an error response to a query of at least 12 bytes that could not be decoded.

    The response repeats the question if it can be parsed. It contains an OPT record if an OPT record directly follows
    the question in the query, or if *rcode* needs more than the header's four bits. *flags* are set in addition to QR.
    """
    ident, asked = struct.unpack_from("!HH", wire)
    question, opt = b"", b""
    try:
        end = _Reader(wire)._end(HEADER.size)  # noqa: SLF001 - a class of the same module
        if wire[4:6] == b"\0\1" and end + 4 <= len(wire) and end - HEADER.size <= MAX_NAME and wire[end - 1] == 0:
            question = wire[HEADER.size : end + 4]
    except (IndexError, RemoteError):
        pass
    if rcode > 0xF or _has_opt(wire, len(question)):
        opt = encode_opt(rcode)
    flags |= QR | asked & (0x7800 | RD | CD) | rcode & 0xF
    return HEADER.pack(ident, flags, bool(question), 0, 0, bool(opt)) + question + opt


def _has_opt(wire: bytes, question: int) -> bool:
    """Return whether an OPT record directly follows the question, which has *question* bytes."""
    at = HEADER.size + question
    return bool(question) and wire[6:10] == b"\0\0\0\0" and wire[at : at + 3] == b"\0\0\x29" and len(wire) >= at + 11


class Writer:
    """Encodes the sections after the header and question, with compressed names (RFC 1035 section 4.1.4).

    Args:
        question: name, type and class exactly as the client sent them.
        anchor: the name that decides the answer: the question's name, the zone cut or the apex. Pointers into the
            question refer only to the anchor or its ancestors, so two questions with the same outcome get the same
            bytes except for pointer offsets.
    """

    #: Number of offsets that a 14-bit compression pointer can address.
    REACH = 0x4000

    def __init__(self, question: bytes, anchor: Name) -> None:
        self.body = bytearray()
        self._base = HEADER.size + len(question)
        self._question = question[:-4].lower()
        self._offsets: dict[bytes, int] = {}
        #: Offsets in `body` of all pointers, except those to the complete question name.
        self.pointers: list[int] = []
        spare = len(self._question) - len(anchor.key)
        for suffix in _suffixes(anchor.key):
            self._offsets[suffix] = HEADER.size + spare + len(anchor.key) - len(suffix)

    def record(self, owner: Name, rdtype: int, ttl: int, rdata: bytes, *, asked: bool = False) -> None:
        """Append one record of class IN.

        If *asked* is True, the owner may be a pointer to the complete question name even if the anchor is an ancestor.
        """
        body = self.body
        if asked and owner.key == self._question:
            body += b"\xc0\x0c"
        else:
            self._name(owner)
        body += _RECORD.pack(rdtype, rdtypes.IN, ttl, len(rdata))
        if rdtype not in rdtypes.COMPRESSIBLE:
            body += rdata
            return
        length_at = len(body) - 2
        at = 0
        for step in rdtypes.LAYOUTS[rdtype]:
            if step == "name":
                end = at
                while rdata[end]:
                    end += 1 + rdata[end]
                self._name(Name(rdata[at : end + 1]))
                at = end + 1
            else:
                body += rdata[at : at + int(step)]
                at += int(step)
        body += rdata[at:]
        struct.pack_into("!H", body, length_at, len(body) - length_at - 2)

    def _name(self, name: Name) -> None:
        body, offsets, at, wire = self.body, self._offsets, 0, name.wire
        for suffix in _suffixes(name.key):
            known = offsets.get(suffix)
            if known is not None:
                self.pointers.append(len(body))
                body += struct.pack("!H", 0xC000 | known)
                return
            here = self._base + len(body)
            if here < self.REACH:
                offsets[suffix] = here
            step = 1 + wire[at]
            body += wire[at : at + step]
            at += step
        body.append(0)


def _suffixes(key: bytes) -> list[bytes]:
    """Return *key* and its ancestors except the root, because compressing the root saves nothing."""
    found, at = [], 0
    while key[at]:
        found.append(key[at:])
        at += 1 + key[at]
    return found
