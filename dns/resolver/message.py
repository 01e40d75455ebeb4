"""Messages between resolver, servers and clients (RFC 1035 section 4, EDNS RFC 6891): bytes to records and back.

Names are absolute and lower-cased text here (``www.example.com.``); a client's own spelling is kept beside.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import dnslib

import serving

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
QR, AA, TC, RD, RA, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
#: What we accept and send in one datagram (DNS flag day 2020).
PAYLOAD = 1232
PLAIN_UDP = 512
_HEADER = struct.Struct("!6H")
#: The OPT record of our own queries: version 0, no flags, our payload.
_OPT = struct.pack("!BHHIH", 0, 41, PAYLOAD, 0, 0)
#: Types whose RDATA is a name that is followed: NS, CNAME.
_NAMED = (2, 5)
_TYPES: dict[int, str] = dict(dnslib.QTYPE.forward)


class MalformedError(Exception):
    """Not a message that means anything here; carries the rcode for whoever sent it."""

    def __init__(self, message: str, rcode: int = FORMERR) -> None:
        super().__init__(message)
        self.rcode = rcode


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record of class IN."""

    name: str
    rtype: str
    #: Seconds, as received or as they remain.
    ttl: int
    #: A dnslib RDATA object.
    rdata: Any = field(compare=False)

    @property
    def text(self) -> str:
        """The RDATA as master files write it."""
        return str(self.rdata)


@dataclass(frozen=True, slots=True)
class Message:
    """A server's reply."""

    rcode: int
    authoritative: bool
    truncated: bool
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientQuery:
    """What a client asked."""

    id: int
    flags: int
    #: Octets of the question, repeated in the response.
    question: bytes
    qname: str
    qtype: str
    #: UDP payload that the client takes; None without EDNS.
    payload: int | None


def rcode_name(rcode: int) -> str:
    """Return ``NXDOMAIN`` for 3."""
    return str(dnslib.RCODE.forward.get(rcode, f"RCODE{rcode}"))


def is_below(name: str, zone: str) -> bool:
    """Return whether *name* is *zone* or below it."""
    return zone in (".", name) or name.endswith("." + zone)


def parent(name: str) -> str:
    """Return *name* without its first label; the root's parent is the root."""
    return name.partition(".")[2] or "."


def query(ident: int, qname: str, qtype: str) -> bytes:
    """Encode an iterative query."""
    name = b"".join(bytes([len(label)]) + label for label in _labels(qname)) + b"\0"
    return _HEADER.pack(ident, 0, 1, 0, 0, 1) + name + struct.pack("!HH", type_code(qtype), 1) + _OPT


def type_code(qtype: str) -> int:
    """Return the number of a type, also of ``TYPE65280``."""
    code = dnslib.QTYPE.reverse.get(qtype)
    return int(code) if code is not None else int(qtype.removeprefix("TYPE"))


def parse_reply(sent: bytes, received: bytes) -> Message:
    """Decode the reply to our query *sent*.

    Raises:
        MalformedError: another id or question (somebody guesses, RFC 5452), or no message at all.
    """
    if len(received) < 12 or received[:2] != sent[:2] or not received[2] & 0x80:
        raise MalformedError("not a reply to this query")
    end = len(sent) - len(_OPT)
    if received[4:6] != b"\0\1" or received[12:end].lower() != sent[12:end].lower():
        raise MalformedError("a reply to another question")
    try:
        message = dnslib.DNSRecord.parse(received)
        return Message(
            message.header.rcode,
            bool(message.header.aa),
            bool(message.header.tc),
            _records(message.rr),
            _records(message.auth),
            _records(message.ar),
        )
    except Exception as error:  # dnslib promises none (DNSError, ValueError were seen); unreadable is no reply
        raise MalformedError(f"{type(error).__name__}: {error}") from None


def parse_query(wire: bytes) -> ClientQuery:
    """Decode a client's query.

    Raises:
        MalformedError: with the rcode to answer.
    """
    ident, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(wire)
    if flags >> 11 & 0xF:
        raise MalformedError(f"expected opcode QUERY, got {flags >> 11 & 0xF}", NOTIMP)
    if questions != 1 or answers or authorities:
        raise MalformedError("expected one question and nothing else")
    qname, offset = _name(wire, 12)
    if offset + 4 > len(wire):
        raise MalformedError("the question is cut short")
    qtype, qclass = struct.unpack_from("!HH", wire, offset)
    question, payload = wire[12 : offset + 4], None
    offset += 4
    if qclass != 1:
        raise MalformedError(f"expected class IN, got {qclass}", REFUSED)
    for _ in range(additionals):
        owner, offset = _name(wire, offset)
        if offset + 10 > len(wire):
            raise MalformedError("a record is cut short")
        rtype, rclass, ttl, length = struct.unpack_from("!HHIH", wire, offset)
        offset += 10 + length
        if offset > len(wire):
            raise MalformedError("a record is cut short")
        if rtype == 41:
            if owner != "." or payload is not None:
                raise MalformedError("expected one OPT record at the root")
            if ttl >> 16 & 0xFF:
                raise MalformedError("expected EDNS version 0", BADVERS)
            payload = rclass
    return ClientQuery(ident, flags, question, qname, _TYPES.get(qtype, f"TYPE{qtype}"), payload)


def response(
    asked: ClientQuery, rcode: int, answer: Sequence[Record], authority: Sequence[Record], *, udp: bool
) -> bytes:
    """Encode the response to a client, truncated where a datagram can not hold it."""
    limit = min(max(asked.payload or PLAIN_UDP, PLAIN_UDP), PAYLOAD) if udp else 65535
    wire = _pack(asked, rcode, answer, authority)
    return wire if len(wire) <= limit else _pack(asked, rcode, (), (), truncated=True)


def error(wire: bytes, rcode: int) -> bytes:
    """Encode an error without records for a query that could not be read."""
    ident, flags = struct.unpack_from("!HH", wire)
    try:
        _, offset = _name(wire, 12)
        question = wire[12 : offset + 4] if offset + 4 <= len(wire) and wire[4:6] == b"\0\1" else b""
    except MalformedError:
        question = b""
    extended = struct.pack("!BHHBBHH", 0, 41, PAYLOAD, rcode >> 4, 0, 0, 0) if rcode > 15 else b""
    flags = QR | RA | flags & (0x7800 | RD | CD) | rcode & 0xF
    return _HEADER.pack(ident, flags, bool(question), 0, 0, bool(extended)) + question + extended


def _pack(
    asked: ClientQuery, rcode: int, answer: Sequence[Record], authority: Sequence[Record], *, truncated: bool = False
) -> bytes:
    buffer = serving.Buffer()
    flags = QR | RA | (TC if truncated else 0) | asked.flags & (RD | CD) | rcode
    edns = asked.payload is not None
    buffer.append(_HEADER.pack(asked.id, flags, 1, len(answer), len(authority), edns))
    buffer.append(asked.question)
    labels, offset = _labels(asked.qname), 12
    for depth, label in enumerate(labels):  # answers point to the question's labels
        buffer.names.setdefault(labels[depth:], offset)
        offset += len(label) + 1
    for each in (*answer, *authority):
        dnslib.RR(dnslib.DNSLabel(_labels(each.name)), type_code(each.rtype), 1, each.ttl, each.rdata).pack(buffer)
    if edns:
        buffer.append(_OPT)
    return bytes(buffer.data)


def _records(section: Sequence[Any]) -> tuple[Record, ...]:
    records = []
    for rr in section:
        name = to_text(rr.rname)
        if rr.rtype == 41 or rr.rclass != 1 or name is None:
            continue
        if rr.rtype in _NAMED and to_text(rr.rdata.label) is None:
            continue
        rtype = _TYPES.get(rr.rtype, f"TYPE{rr.rtype}")
        # The top bit of a TTL is no number (RFC 2181 section 8): such a record is not to be kept.
        records.append(Record(name, rtype, rr.ttl if rr.ttl < 1 << 31 else 0, rr.rdata))
    return tuple(records)


def to_text(label: Any) -> str | None:
    """Return a name of dnslib's as we write names: octets as Latin-1, lower case, with a dot at the end.

    None for a name with a dot inside a label: as text it would be another name, and an attacker's way into the cache
    (Jeitner and Shulman, "Injection Attacks Reloaded", USENIX Security 2021).
    """
    if any(b"." in bytes(part) for part in label.label):
        return None
    return "".join(bytes(part).lower().decode("latin-1") + "." for part in label.label) or "."


def _labels(name: str) -> tuple[bytes, ...]:
    return () if name == "." else tuple(part.encode("latin-1") for part in name[:-1].split("."))


def _name(wire: bytes, offset: int) -> tuple[str, int]:
    labels: list[str] = []
    size = 1
    while True:
        if offset >= len(wire):
            raise MalformedError("a name is cut short")
        length = wire[offset]
        offset += 1
        if length == 0:
            return "".join(label + "." for label in labels) or ".", offset
        label = wire[offset : offset + length]
        size += length + 1
        if length > 63 or len(label) < length or size > 255:
            raise MalformedError("a name is cut short, compressed or too long")
        if b"." in label:
            raise MalformedError("a dot inside a label is not supported here", SERVFAIL)
        labels.append(label.lower().decode("latin-1"))
        offset += length
