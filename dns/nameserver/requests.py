"""Requests other than ordinary queries: signed queries, transfers, UPDATE and NOTIFY.

This module checks signatures and permissions, then dispatches the request. It opens no socket; the time is an argument.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from dnsmessage import Name, RemoteError, error_response, rcode_to_text, rdtypes, tsig
from dnsmessage.message import AA, FORMERR, HEADER, MAX_TCP, NOTAUTH, NOTIMP, PAYLOAD, PLAIN_UDP, REFUSED
from dnsmessage.request import NOTIFY, QUERY, UPDATE, decode_request, decode_zone
from dnsmessage.tsig import ERRORS, Key, Signer, TsigError, Verified
from nameserver import transfer
from nameserver.access import Access
from nameserver.changes import History, serial_of
from nameserver.responder import Responder
from serving import Later
from telemetry import log

logger = log.get("nameserver")

#: ``notified(apex, client, serial)`` handles a NOTIFY and returns the rcode; *serial* is None if the NOTIFY has no SOA
#: record.
Notified = Callable[[Name, str, int | None], int]
#: ``update(apex, wire, key)`` performs an UPDATE and returns the rcode.
Update = Callable[[Name, bytes, Key | None], Awaitable[int]]
#: Maximum number of records in a transfer request or a NOTIFY; they need at most an SOA and an OPT record.
MAX_FEW = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """A reply and its rcode; the reply to a transfer consists of several messages."""

    wire: bytes | Iterator[bytes]
    rcode: int


class Requests:
    """Answers requests for which there is no prebuilt answer."""

    def __init__(self, responder: Responder, access: Access, histories: dict[Name, History]) -> None:
        self.access = access
        #: Handlers of NOTIFY and UPDATE, set by servers that have secondary zones or zones that accept updates.
        self.notified: Notified | None = None
        self.update: Update | None = None
        self._responder, self._histories = responder, histories
        self._refusals = log.bounded("nameserver")

    def respond(
        self, wire: bytes, client: str, clock: Callable[[], float], *, udp: bool
    ) -> Outcome | Awaitable[Outcome] | None:
        """Return the reply to *wire*; None if *wire* is shorter than a header or is not a request.

        *clock* returns the seconds since 1970; each message of a transfer is signed with the time at which it is made.
        """
        if len(wire) < HEADER.size or wire[2] & 0x80:
            return None
        try:
            checked = tsig.verify(wire, self.access.keys, int(clock()))
        except TsigError as error:
            self._refusals.warning("tsig_rejected", client=client, error=ERRORS[error.error], detail=str(error))
            return Outcome(tsig.refusal(wire, error, int(clock())), error.rcode)
        except RemoteError as error:
            return Outcome(error_response(wire, error.rcode), error.rcode)
        reply = self._reply(checked, client, udp)
        if checked.key is None:
            return reply
        signer = Signer(checked.key, checked.mac)

        def signed(plain: Outcome) -> Outcome:
            if isinstance(plain.wire, bytes):
                return Outcome(signer.sign(plain.wire, int(clock())), plain.rcode)
            return Outcome((signer.sign(each, int(clock())) for each in plain.wire), plain.rcode)

        return signed(reply) if isinstance(reply, Outcome) else Later(reply, signed)

    def resign(self, wire: bytes, reply: bytes, now: int) -> bytes:
        """Return *reply*, signed with the TSIG key of the request *wire*; *now* is the time in seconds since 1970."""
        try:
            checked = tsig.verify(wire, self.access.keys, now)
        except TsigError as error:
            return tsig.refusal(wire, error, now)
        return reply if checked.key is None else Signer(checked.key, checked.mac).sign(reply, now)

    def _reply(self, checked: Verified, client: str, udp: bool) -> Outcome | Awaitable[Outcome]:
        wire, key = checked.wire, checked.key
        opcode = wire[2] >> 3 & 0xF
        try:
            if opcode == QUERY and (self._qtype(wire) not in {rdtypes.AXFR, rdtypes.IXFR} or wire[4:6] != b"\0\1"):
                response = self._responder.respond(wire, udp=udp, reserve=0 if key is None else key.overhead)
                assert response is not None  # noqa: S101 - `respond` has checked that the message is a request
                return Outcome(response.wire, response.rcode)
            if opcode not in {QUERY, NOTIFY, UPDATE}:
                return _empty(wire, NOTIMP)
            apex, qtype, qclass = decode_zone(wire)
            if qclass != rdtypes.IN:
                return _empty(wire, NOTAUTH if opcode else REFUSED)
            if opcode == QUERY:
                return self._transfer(wire, apex, qtype, key, client, udp)
            if qtype != rdtypes.SOA:
                return _empty(wire, FORMERR)  # RFC 2136 section 3.1.1, RFC 1996 section 3.7
            if opcode == NOTIFY:
                return self._notify(wire, apex, client)
            return self._update(wire, apex, key, client)
        except RemoteError as error:
            return _empty(wire, error.rcode)

    def _transfer(self, wire: bytes, apex: Name, qtype: int, key: Key | None, client: str, udp: bool) -> Outcome:
        zone = self._responder.zone(apex)
        if zone is None or not self.access.may_transfer(apex, key, client):
            rcode = REFUSED if zone is not None or self._responder.find_zone(apex) is None else NOTAUTH
            self._refusals.info(
                "transfer_refused", zone=str(apex), client=client, key=_shown(key), rcode=rcode_to_text(rcode)
            )
            return _empty(wire, rcode)
        if udp and qtype == rdtypes.AXFR:
            return _empty(wire, FORMERR)  # RFC 5936 section 4.2
        request = decode_request(wire, MAX_FEW)
        logger.info(
            "transfer", zone=str(apex), type=rdtypes.to_text(qtype), client=client, key=_shown(key), serial=zone.serial
        )
        if qtype == rdtypes.AXFR:
            return Outcome(transfer.whole(request, zone), 0)
        payload = PLAIN_UDP if request.edns is None else min(max(request.edns.payload, PLAIN_UDP), PAYLOAD)
        limit = (payload if udp else MAX_TCP) - (0 if key is None else key.overhead)
        history = self._histories.setdefault(apex, History())
        messages = transfer.incremental(request, zone, history, udp_limit=limit if udp else None)
        return Outcome(next(messages), 0) if udp else Outcome(messages, 0)

    def _notify(self, wire: bytes, apex: Name, client: str) -> Outcome:
        if self.notified is None:
            return _empty(wire, NOTAUTH)
        request = decode_request(wire, MAX_FEW)
        soa = [each.rdata for each in request.answer if each.rdtype == rdtypes.SOA and len(each.rdata) >= 20]
        return _empty(wire, self.notified(apex, client, serial_of(soa[0]) if soa else None), AA)

    def _update(self, wire: bytes, apex: Name, key: Key | None, client: str) -> Outcome | Awaitable[Outcome]:
        if self.update is None or self._responder.zone(apex) is None:
            return _empty(wire, NOTAUTH)
        if not self.access.may_update(apex, key):
            self._refusals.warning("update_refused", zone=str(apex), client=client, key=_shown(key))
            return _empty(wire, REFUSED)
        return Later(self.update(apex, wire, key), lambda rcode: _empty(wire, rcode))

    @staticmethod
    def _qtype(wire: bytes) -> int:
        """Return the record type in the question; 0 if the message ends before the type."""
        at = HEADER.size
        while at < len(wire) and wire[at]:
            at += 1 + wire[at]
        return int.from_bytes(wire[at + 1 : at + 3], "big")


def _empty(wire: bytes, rcode: int, flags: int = 0) -> Outcome:
    """Return a reply without records: an error, or the reply to an UPDATE or a NOTIFY."""
    return Outcome(error_response(wire, rcode, flags), rcode)


def _shown(key: Key | None) -> str:
    return "" if key is None else str(key.name)
