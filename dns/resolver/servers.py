"""What experience says of name servers: how far away each is, which are unresponsive, which do not speak EDNS.

No socket, no clock: the time is an argument, in seconds.
"""

import random
from dataclasses import dataclass

#: Time-outs in a row after which a server counts as unresponsive (RFC 9520 section 3.1: three).
EJECT_AFTER = 3
#: Seconds for which an unresponsive server is asked last (RFC 2308 section 7.2: at most five minutes); then one query
#: probes it.
COOLDOWN = 60.0
#: Weight of the newest round-trip time (RFC 6298 uses 1/8 for a stream of samples; servers are asked rarely).
SRTT_WEIGHT = 0.3
#: Servers that are remembered, each some 200 bytes: referrals can name any number of addresses.  The oldest is
#: forgotten first.
MAX_SERVERS = 4096


@dataclass(slots=True)
class Known:
    """One server."""

    #: Smoothed round-trip time in milliseconds; None before the first reply.
    srtt_ms: float | None = None
    #: Queries in a row that brought no reply.
    timeouts: int = 0
    #: Until when it is asked last.
    ejected_until: float = 0.0
    #: False once it answered a query with EDNS by FORMERR, NOTIMP or BADVERS, and one without it properly (RFC 6891
    #: section 7).
    edns: bool = True


class Servers:
    """Every server that was ever asked, by address."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}

    def __repr__(self) -> str:
        unresponsive = sum(known.timeouts >= EJECT_AFTER for known in self.known.values())
        return f"<Servers known={len(self.known)} unresponsive={unresponsive}>"

    def srtt_ms(self, address: str) -> float | None:
        """Return the smoothed round-trip time in milliseconds; None where none was measured."""
        known = self.known.get(address)
        return None if known is None else known.srtt_ms

    def speaks_edns(self, address: str) -> bool:
        """Return whether to ask with EDNS: True until shown otherwise."""
        known = self.known.get(address)
        return known is None or known.edns

    def without_edns(self, address: str) -> None:
        """Record that the server understands queries without EDNS only."""
        self._get(address).edns = False

    def answered(self, address: str, rtt_ms: float) -> None:
        """Record a reply after *rtt_ms* milliseconds."""
        known = self._get(address)
        old = known.srtt_ms
        known.srtt_ms = rtt_ms if old is None else old + SRTT_WEIGHT * (rtt_ms - old)
        known.timeouts, known.ejected_until = 0, 0.0

    def timed_out(self, address: str, now: float) -> bool:
        """Record that no reply came; return whether the server has just been ejected."""
        known = self._get(address)
        fresh = known.ejected_until <= now
        known.timeouts += 1
        if known.timeouts < EJECT_AFTER:
            return False
        known.ejected_until = now + COOLDOWN
        return fresh

    def rank(self, address: str, now: float, rng: random.Random) -> tuple[bool, float]:
        """Return a key that sorts servers by preference: responsive ones before ejected ones, then the nearest.

        A server without a round-trip time counts as near, so that every server is measured.
        """
        known = self.known.get(address)
        if known is None:
            return False, rng.random()
        return known.ejected_until > now, rng.random() if known.srtt_ms is None else known.srtt_ms

    def forgive(self) -> None:
        """End every ejection; round-trip times stay."""
        for known in self.known.values():
            known.timeouts, known.ejected_until, known.edns = 0, 0.0, True

    def _get(self, address: str) -> Known:
        known = self.known.get(address)
        if known is None:
            if len(self.known) >= MAX_SERVERS:
                del self.known[next(iter(self.known))]
            known = self.known[address] = Known()
        return known
