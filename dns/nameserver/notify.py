"""Schedule of NOTIFY messages and their retries (RFC 1996).

Nothing here opens a socket or reads a clock. `Notifier.due` returns the messages to send now, `acknowledged` processes
an answer, and `next` returns when to call `due` again. A burst of changes is announced once.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from dnsmessage import Name, Record, rdtypes
from dnsmessage.message import AA, HEADER
from dnsmessage.request import NOTIFY
from nameserver.access import Access, Target
from nameserver.changes import serial_of
from nameserver.zone import Zone, kind

#: Delay between a change and its announcement in seconds, so that a burst of changes needs only one announcement.
DELAY = 0.1
#: Intervals between retries, in seconds. After the last retry, nothing is sent to that server until the next change; it
#: still polls at the refresh interval in the SOA record.
RETRIES = (1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(slots=True)
class _Pending:
    target: Target
    soa: Record
    #: Time when the announcement is sent next, in seconds on the caller's clock.
    at: float
    #: Number of times that the announcement has been sent.
    sent: int = 0
    ident: int = 0


@dataclass(frozen=True, slots=True)
class Notice:
    """One unsigned NOTIFY message to send."""

    target: Target
    apex: Name
    serial: int
    wire: bytes
    #: Whether all retries went unanswered; no further notification is sent.
    given_up: bool = False


class Notifier:
    """Announcements that have not been answered yet."""

    def __init__(self, rng: Random) -> None:
        """Create a notifier; *rng* chooses message IDs, so it should not be predictable."""
        self._rng = rng
        self._pending: dict[tuple[Name, str, int], _Pending] = {}

    def __repr__(self) -> str:
        return f"<Notifier {len(self._pending)} unanswered>"

    def changed(self, soa: Record, targets: Iterable[Target], now: float) -> None:
        """Schedule announcements of the SOA record *soa*; pending announcements of the same zone are dropped."""
        for target in targets:
            key = soa.name, target.address, target.port
            waiting = self._pending.get(key)
            at = waiting.at if waiting is not None and not waiting.sent else now + DELAY
            self._pending[key] = _Pending(target, soa, at)

    def due(self, now: float) -> list[Notice]:
        """Return the messages to send now."""
        notices = []
        for key, each in list(self._pending.items()):
            if each.at > now:
                continue
            given_up = each.sent > len(RETRIES) - 1
            if given_up:
                del self._pending[key]
            else:
                each.at = now + RETRIES[each.sent]
                each.sent += 1
                each.ident = self._rng.randrange(1 << 16)
            notices.append(
                Notice(each.target, each.soa.name, serial_of(each.soa.rdata), _encode(each.ident, each.soa), given_up)
            )
        return notices

    def acknowledged(self, wire: bytes, source: tuple[str, int]) -> Notice | None:
        """Return the notice that *wire* from *source* answers, whatever its rcode; None if there is no such notice."""
        if len(wire) < HEADER.size or wire[2] & 0xF8 != 0x80 | NOTIFY << 3:
            return None
        ident = int.from_bytes(wire[:2], "big")
        for key, each in self._pending.items():
            if key[1:] == source and each.sent and each.ident == ident:
                del self._pending[key]
                return Notice(each.target, each.soa.name, serial_of(each.soa.rdata), wire)
        return None

    def next(self) -> float | None:
        """Return when `due` has to be called next; None if no announcement is pending."""
        return min((each.at for each in self._pending.values()), default=None)


def targets(zone: Zone, access: Access, own: str, *, primary: bool) -> list[Target]:
    """Return the servers to notify of a change of *zone*.

    These are the targets on the command line. If *primary* is True and the zone may be transferred, they also include
    the name servers in the NS records, except the one named in the SOA record (RFC 1996 section 3.3); their addresses
    are looked up in the zone. *own* is the address of this server, which is left out.
    """
    found = {(each.address, each.port): each for each in access.also_notify(zone.apex)}
    if primary and access.is_transferred(zone.apex):
        master = zone.soa.rdata[0].lower()
        servers = (zone.node(zone.apex) or {})[rdtypes.NS]
        for rrset in zone.addresses(servers):
            if rrset.rdtype == rdtypes.A and not master.startswith(rrset.name.key):
                for address in (".".join(map(str, rdata)) for rdata in rrset.rdata):
                    found.setdefault((address, 53), Target(zone.apex, address))
    return [each for each in found.values() if each.address != own or each.port != 53]


def _encode(ident: int, soa: Record) -> bytes:
    """Encode a NOTIFY with the SOA record in its answer section, so that it carries the new serial number."""
    head = HEADER.pack(ident, NOTIFY << 11 | AA, 1, 1, 0, 0) + soa.name.wire + kind(rdtypes.SOA)
    return head + b"\xc0\x0c" + kind(rdtypes.SOA) + struct.pack("!IH", soa.ttl, len(soa.rdata)) + soa.rdata
