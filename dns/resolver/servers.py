"""What experience says of name servers: how far away each is, and which of them do not answer.

No socket, no clock: the time is an argument, in seconds.
"""

import random
from dataclasses import dataclass

#: Queries in a row without a reply after which a server counts as silent (RFC 9520 section 3.1: three).
SILENT_AFTER = 3
#: Seconds in which a silent server is asked last (RFC 2308 section 7.2: at most five minutes); then one query finds out.
HOLD_DOWN = 60.0
#: Weight of the newest round-trip time (RFC 6298 uses 1/8 for a stream of samples; servers are asked rarely).
SRTT_WEIGHT = 0.3
#: Servers that are remembered, each some 200 octets: referrals can name any number of addresses.  The oldest acquaintance goes.
MOST = 4096


@dataclass(slots=True)
class Known:
    """One server."""

    #: Smoothed round-trip time in milliseconds; None before the first reply.
    srtt_ms: float | None = None
    #: Queries in a row that brought no reply.
    unanswered: int = 0
    #: Until when it is asked last.
    silent_until: float = 0.0


class Servers:
    """All that were ever asked, by address."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}

    def __repr__(self) -> str:
        silent = sum(known.unanswered >= SILENT_AFTER for known in self.known.values())
        return f"<Servers known={len(self.known)} silent={silent}>"

    def srtt_ms(self, address: str) -> float | None:
        """Return the smoothed round-trip time in milliseconds; None where none was measured."""
        known = self.known.get(address)
        return None if known is None else known.srtt_ms

    def answered(self, address: str, rtt_ms: float) -> None:
        """A reply came after *rtt_ms* milliseconds."""
        known = self._get(address)
        old = known.srtt_ms
        known.srtt_ms = rtt_ms if old is None else old + SRTT_WEIGHT * (rtt_ms - old)
        known.unanswered, known.silent_until = 0, 0.0

    def unanswered(self, address: str, now: float) -> bool:
        """No reply came; return whether the server counts as silent only since now."""
        known = self._get(address)
        fresh = known.silent_until <= now
        known.unanswered += 1
        if known.unanswered < SILENT_AFTER:
            return False
        known.silent_until = now + HOLD_DOWN
        return fresh

    def rank(self, address: str, now: float, rng: random.Random) -> tuple[bool, float]:
        """Return a key that sorts servers by preference: those that answer before the silent ones, then the quickest.

        A server without a round-trip time is taken for a quick one, so that every server gets measured.
        """
        known = self.known.get(address)
        if known is None:
            return False, rng.random()
        return known.silent_until > now, rng.random() if known.srtt_ms is None else known.srtt_ms

    def forgive(self) -> None:
        """Forget who was silent; round-trip times stay."""
        for known in self.known.values():
            known.unanswered, known.silent_until = 0, 0.0

    def _get(self, address: str) -> Known:
        known = self.known.get(address)
        if known is None:
            if len(self.known) >= MOST:
                del self.known[next(iter(self.known))]
            known = self.known[address] = Known()
        return known
