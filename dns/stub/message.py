"""A stub's queries, and what a reply means (RFC 1034 section 5.2.2, RFC 2308).

No socket, no clock: a reply says for how long it holds; `stub.resolve` knows since when.
"""

import struct
from dataclasses import dataclass

from dnsmessage import LocalError, Message, Name, RemoteError, decode_reply, encode_query, rcode_to_text, rdtypes
from dnsmessage import rdata as rdatas
from dnsmessage.message import NOERROR, NXDOMAIN
from stub.errors import MalformedReplyError, NoAddress, NoSuchName, ServerFailure

#: CNAMEs followed within one reply.
MAX_CHAIN = 16
#: Seconds for which a negative answer without SOA is kept: none (RFC 2308 section 5).
NO_SOA_TTL = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of one name and type."""

    #: As asked.
    name: str
    rdtype: str
    #: Master-file text of each record: addresses, in the order of the reply.
    rdata: tuple[str, ...]
    #: Seconds that remain; the smallest TTL along the CNAMEs.
    ttl_s: float
    #: When it ends, on the clock of the stub (monotonic seconds).
    expires_at: float
    #: Whether it came from this stub's own cache.
    cached: bool
    #: From the first query to the reply that was used; 0 when cached.
    rtt_ms: float
    #: ``address:port`` of the server that answered; empty for literals.
    server: str
    rcode: str = "NOERROR"
    bytes_sent: int = 0
    bytes_received: int = 0
    #: The end of the CNAME chain.
    canonical_name: str = ""


def query(ident: int, name: str, rdtype: str) -> bytes:
    """Encode a recursive query with EDNS.

    Raises:
        ValueError: *name* is no domain name or *rdtype* no type.
    """
    try:
        number = rdtypes.from_text(rdtype)
        return encode_query(ident, _name(name), number, recursive=True)
    except LocalError as error:
        raise ValueError(str(error)) from None


def parse(sent: bytes, received: bytes) -> Message:
    """Decode *received* as the reply to *sent*.

    Raises:
        MalformedReplyError: another ID, another question, or no DNS message at all.
    """
    try:
        return decode_reply(sent, received)
    except RemoteError as error:
        raise MalformedReplyError(str(error)) from None


def interpret(reply: Message, name: str, rdtype: str) -> tuple[tuple[str, ...], float, str]:
    """Return the RDATA, TTL in seconds and canonical name that *reply* gives for the question.

    Raises:
        NoSuchName, NoAddress: the reply denies the name or the type; `negative_ttl` says for how long.
        ServerFailure: any other rcode.
    """
    if reply.rcode not in {NOERROR, NXDOMAIN}:
        raise ServerFailure(name, rdtype, f"{name}: the server answered {rcode_to_text(reply.rcode)}")
    wanted = rdtypes.from_text(rdtype)
    current, ttl = _name(name), float("inf")
    for _ in range(MAX_CHAIN):
        found = [record for record in reply.answer if record.rdtype == wanted and record.name == current]
        if found:
            ttl = min(ttl, *(float(record.ttl) for record in found))
            return tuple(rdatas.to_text(wanted, record.rdata) for record in found), ttl, str(Name(current.key))
        alias = [record for record in reply.answer if record.rdtype == rdtypes.CNAME and record.name == current]
        if not alias:
            break
        ttl, current = min(ttl, float(alias[0].ttl)), Name(alias[0].rdata)
    if reply.rcode == NXDOMAIN:
        raise NoSuchName(name, rdtype, f"{name}: no such name (NXDOMAIN)")
    raise NoAddress(name, rdtype, f"{name}: exists, and has no {rdtype} record (NODATA)")


def negative_ttl(reply: Message) -> float:
    """Return the seconds for which a negative *reply* may be kept (RFC 2308 section 5)."""
    for record in reply.authority:
        if record.rdtype == rdtypes.SOA:
            return float(min(record.ttl, struct.unpack("!I", record.rdata[-4:])[0]))
    return NO_SOA_TTL


def _name(text: str) -> Name:
    """Read a host name, absolute with or without its last dot; labels outside ASCII in IDNA form (RFC 3490)."""
    if text in {"", "."}:
        return Name(b"\0")
    try:
        ascii_text = text if text.isascii() else ".".join(each.encode("idna").decode() for each in text.split("."))
    except UnicodeError:
        raise LocalError(f"expected a domain name, got {text!r}") from None
    return Name.from_text(ascii_text if ascii_text.endswith(".") else ascii_text + ".")
