"""Encode a stub's queries and interpret the replies (RFC 1034 section 5.2.2, RFC 2308).

This module uses no sockets and reads no clock; it returns TTLs, and `stub.resolve` computes the expiry times.
"""

import struct
from dataclasses import dataclass

from dnsmessage import LocalError, Message, Name, RemoteError, decode_reply, encode_query, rcode_to_text, rdtypes
from dnsmessage import rdata as rdatas
from dnsmessage.message import NOERROR, NXDOMAIN
from dnsmessage.options import PADDING, encode_option
from stub.errors import MalformedReplyError, NoAddress, NoSuchName, ServerFailure

#: Maximum number of CNAMEs followed within one reply.
MAX_CHAIN = 16
#: Lifetime in seconds of a negative answer without an SOA record: it is not cached (RFC 2308 section 5).
NO_SOA_TTL = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of one name and type, with details of how they were obtained."""

    #: The queried name, as the caller wrote it.
    name: str
    rdtype: str
    #: Each record's RDATA in presentation format (for A: IPv4 addresses), in the order of the reply.
    rdata: tuple[str, ...]
    #: Remaining lifetime in seconds: the lowest TTL along the CNAME chain.
    ttl_s: float
    #: Expiry time on the stub's clock, in monotonic seconds.
    expires_at: float
    #: Whether the answer came from this stub's cache or needed no query (IP address literals).
    cached: bool
    #: Time from the first query to the reply that was used, in milliseconds; 0 if cached.
    rtt_ms: float
    #: ``address:port`` of the server that replied; empty for IP address literals.
    server: str
    rcode: str = "NOERROR"
    bytes_sent: int = 0
    bytes_received: int = 0
    #: The name at the end of the CNAME chain.
    canonical_name: str = ""
    #: ``udp``, ``tcp`` or ``tls``; empty for IP address literals.
    transport: str = ""
    #: Number of round trips until the answer arrived, including the handshakes of a new connection; 0 if cached.
    round_trips: int = 0


def query(ident: int, name: str, rdtype: str, block: int = 0) -> bytes:
    """Encode a recursive query with EDNS, padded to a multiple of *block* bytes unless that is 0 (RFC 7830).

    Raises:
        ValueError: *name* is not a valid domain name, or *rdtype* is not a known record type.
    """
    try:
        number = rdtypes.from_text(rdtype)
        wire = encode_query(ident, _name(name), number, recursive=True)
        if not block:
            return wire
        padding = encode_option(PADDING, bytes(-(len(wire) + 4) % block))
        return encode_query(ident, _name(name), number, recursive=True, options=padding)
    except LocalError as error:
        raise ValueError(str(error)) from None


def parse(sent: bytes, received: bytes) -> Message:
    """Decode *received* as the reply to *sent*.

    Raises:
        MalformedReplyError: the ID or question differs, or *received* is not a valid DNS message.
    """
    try:
        return decode_reply(sent, received)
    except RemoteError as error:
        raise MalformedReplyError(str(error)) from None


def interpret(reply: Message, name: str, rdtype: str) -> tuple[tuple[str, ...], float, str]:
    """Return the RDATA, TTL in seconds and canonical name from *reply*.

    Raises:
        NoSuchName: the name does not exist; `negative_ttl` returns how long to cache this result.
        NoAddress: the name has no record of the type; `negative_ttl` returns how long to cache this result.
        ServerFailure: the reply has any other rcode.
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
    """Return the time for which a negative *reply* may be cached, in seconds (RFC 2308 section 5)."""
    for record in reply.authority:
        if record.rdtype == rdtypes.SOA:
            return float(min(record.ttl, struct.unpack("!I", record.rdata[-4:])[0]))
    return NO_SOA_TTL


def _name(text: str) -> Name:
    """Parse a host name with or without a final dot; non-ASCII labels are converted by IDNA (RFC 3490)."""
    if text in {"", "."}:
        return Name(b"\0")
    try:
        ascii_text = text if text.isascii() else ".".join(each.encode("idna").decode() for each in text.split("."))
    except UnicodeError:
        raise LocalError(f"expected a domain name, got {text!r}") from None
    return Name.from_text(ascii_text if ascii_text.endswith(".") else ascii_text + ".")
