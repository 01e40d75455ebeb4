"""Turn queries into responses: use a prebuilt answer if there is one, otherwise `nameserver.answer`.

This module uses no sockets and reads no clock.
"""

from dataclasses import dataclass, replace

from dnsmessage import Name, Query, RemoteError, decode_query, encode_opt, error_response, rdtypes, suffixes
from dnsmessage.message import AA, BADVERS, CD, HEADER, MAX_TCP, PAYLOAD, PLAIN_UDP, QR, RD, REFUSED, SERVFAIL
from nameserver.answer import Answer, answer, encode
from nameserver.compiled import Compiled, compile_zone, recompile_zone
from nameserver.zone import Zone
from serving import COUNTS, Answers

_PLAIN_OPT, _DO_OPT = encode_opt(), encode_opt(dnssec_ok=True)


@dataclass(frozen=True, slots=True)
class Response:
    """An encoded response with its rcode, which is used for logs and counters."""

    wire: bytes
    rcode: int


class Responder:
    """Answers queries from the zones it serves."""

    def __init__(self, zones: dict[Name, Zone] | None = None) -> None:
        self._compiled: dict[bytes, Compiled] = {}
        #: Apexes of secondary zones without data or with expired data; queries for them get SERVFAIL.
        self._empty: set[bytes] = set()
        self.answers = Answers(QR | AA)
        for zone in (zones or {}).values():
            self._compiled[zone.apex.key] = compile_zone(zone)
        self._merge()

    @property
    def zones(self) -> dict[Name, Zone]:
        """The zones being served, keyed by apex."""
        return {each.zone.apex: each.zone for each in self._compiled.values()}

    def compile(self, zone: Zone) -> Compiled:
        """Return *zone* compiled; if an earlier version is being served, recompile only what has changed."""
        old = self._compiled.get(zone.apex.key)
        return compile_zone(zone) if old is None else recompile_zone(old, zone)

    def put(self, zone: Zone) -> None:
        """Compile and serve *zone*, replacing any zone with the same apex."""
        self.put_compiled(self.compile(zone))

    def put_compiled(self, compiled: Compiled) -> None:
        """Serve a zone that `compile_zone` has already compiled."""
        self._compiled[compiled.zone.apex.key] = compiled
        self._empty.discard(compiled.zone.apex.key)
        self._merge()

    def withdraw(self, apex: Name) -> None:
        """Stop serving the zone *apex*; queries for it get SERVFAIL until `put` is called again."""
        self._compiled.pop(apex.key, None)
        self._empty.add(apex.key)
        self._merge()

    def find_zone(self, qname: Name, qtype: int = 0) -> Zone | None:
        """Return the closest zone at or above *qname*.

        For DS at a zone's apex, the parent zone is returned if it is served here.
        """
        compiled = self._find(qname.key, qtype)
        return None if compiled is None else compiled.zone

    def zone(self, apex: Name) -> Zone | None:
        """Return the zone *apex*; None if it is not served."""
        compiled = self._compiled.get(apex.key)
        return None if compiled is None else compiled.zone

    def respond(self, wire: bytes, *, udp: bool, reserve: int = 0) -> Response | None:
        """Return the response to *wire*; None if *wire* is shorter than a DNS header or is not a query.

        The response leaves room for a signature: it is at least *reserve* bytes shorter than the client's limit.
        """
        if len(wire) < HEADER.size or wire[2] & 0x80:
            return None
        return self.finished(wire, udp=udp, reserve=reserve) or self._decoded(wire, udp, reserve)

    def servfail(self, wire: bytes) -> bytes:
        """Return a SERVFAIL response to *wire*, for the ``servfail`` fault switch."""
        return error_response(wire, SERVFAIL)

    def reference(self, query: Query, limit: int) -> Response:
        """Return the response that `nameserver.answer` gives, without using prebuilt answers."""
        zone = self.find_zone(query.qname, query.qtype)
        if query.edns is not None and query.edns.version:
            content = Answer(BADVERS, False, query.qname)
        elif zone is None and any(suffix in self._empty for suffix in suffixes(query.qname.key)):
            content = Answer(SERVFAIL, False, query.qname)
        elif (
            zone is None or query.qclass not in {rdtypes.IN, rdtypes.ANY} or query.qtype in {rdtypes.AXFR, rdtypes.IXFR}
        ):
            content = Answer(REFUSED, False, query.qname)
        else:
            content = answer(zone, query.qname, query.qtype)
            if query.qclass == rdtypes.ANY:  # an answer for all classes is never authoritative (RFC 1035 section 6.2)
                content = replace(content, authoritative=False)
        return Response(encode(query, content, limit), content.rcode)

    def finished(self, wire: bytes, *, udp: bool, reserve: int = 0) -> Response | None:
        """Return the response to a plain query: opcode 0, one question of class IN, no record except an OPT record.

        Returns None for all other queries, and for questions that have no compiled answer.
        """
        if len(wire) < HEADER.size:
            return None
        flags, counts = wire[2:4], wire[4:12]
        if flags[0] & 0xFE or counts[:7] != b"\0\1\0\0\0\0\0" or counts[7] > 1:
            return None
        end = 12
        try:
            while length := wire[end]:
                if length > 63:
                    return None
                end += 1 + length
        except IndexError:
            return None
        end += 5
        qname, rest, opt, limit = wire[12 : end - 4].lower(), wire[end - 4 : end], b"", PLAIN_UDP
        if counts[7]:
            # Accept only an OPT record that is owned by the root, has version 0, and ends where the message ends.
            if wire[end : end + 3] != b"\0\0\x29" or wire[end + 5 : end + 7] != b"\0\0":
                return None
            size = len(wire) - end - 11
            if (
                size < 0
                or int.from_bytes(wire[end + 9 : end + 11], "big") != size
                or (size and not _options(wire, end + 11))
            ):
                return None
            opt = _DO_OPT if wire[end + 7] & 0x80 else _PLAIN_OPT
            limit = min(max(int.from_bytes(wire[end + 3 : end + 5], "big"), PLAIN_UDP), PAYLOAD)
        elif len(wire) != end:
            return None
        if rest[2:] != b"\0\1" or len(qname) > 255:
            return None
        found = self.answers.get(qname + rest)
        if found is not None:
            rcode, bits, (numbers, body) = 0, QR | AA, found
            records = numbers[:4] + (numbers[6:] if opt else numbers[4:6])
        else:
            qtype = int.from_bytes(rest[:2], "big")
            compiled = self._find(qname, qtype)
            if compiled is None or qtype in {rdtypes.AXFR, rdtypes.IXFR}:
                return None
            tail = compiled.find(qname, qtype)
            if tail is None:
                return None
            rcode, body, bits = tail.rcode, tail.at(len(qname)), QR | (AA if tail.authoritative else 0)
            an, ns, ar = tail.counts
            records = COUNTS.pack(an, ns, ar + bool(opt), 0)[:6]
        if end + len(body) + len(opt) > (limit if udp else MAX_TCP) - reserve:
            return None
        bits |= int.from_bytes(flags, "big") & (RD | CD) | rcode
        head = b"".join((wire[:2], bits.to_bytes(2, "big"), b"\0\1", records))
        return Response(b"".join((head, wire[12:end], body, opt)), rcode)

    def _decoded(self, wire: bytes, udp: bool, reserve: int = 0) -> Response:
        try:
            query = decode_query(wire)
        except RemoteError as error:
            return Response(error_response(wire, error.rcode), error.rcode)
        return self.reference(query, query.limit(udp=udp) - reserve)

    def _find(self, qname: bytes, qtype: int) -> Compiled | None:
        found = None
        for suffix in suffixes(qname):
            compiled = self._compiled.get(suffix)
            if compiled is None and suffix in self._empty and (qtype != rdtypes.DS or suffix != qname):
                return None
            if compiled is not None:
                if qtype != rdtypes.DS or suffix != qname:
                    return compiled
                found = compiled  # DS records belong to the parent zone (RFC 4035 section 3.1.4.1)
        return found

    def _merge(self) -> None:
        if len(self._compiled) == 1:
            (only,) = self._compiled.values()
            self.answers = only.answers
            return
        self.answers = Answers(QR | AA)
        for compiled in self._compiled.values():
            self.answers.merge(compiled.answers)


def _options(wire: bytes, at: int) -> bool:
    """Return whether well-formed EDNS options fill the message exactly from offset *at* to its end."""
    while at + 4 <= len(wire):
        at += 4 + int.from_bytes(wire[at + 2 : at + 4], "big")
    return at == len(wire)
