"""Statistics of name servers: round-trip time, time-outs, and supported features.

The module uses no sockets; the caller passes the time in seconds.
"""

import random
from dataclasses import dataclass

#: Number of consecutive time-outs after which a server counts as unresponsive (RFC 9520 section 3.1: three).
EJECT_AFTER = 3
#: How long an unresponsive server is used only after all others, in seconds (RFC 2308 section 7.2: at most five
#: minutes). After that, one query probes it.
COOLDOWN = 60.0
#: Weight of the newest sample in the smoothed round-trip time. RFC 6298 uses 1/8 for a continuous stream of samples,
#: but a name server is queried only rarely.
SRTT_WEIGHT = 0.3
#: Maximum number of servers stored, at about 200 bytes each, because malicious referrals could name any number of
#: servers. The oldest entry is removed first.
MAX_SERVERS = 4096


@dataclass(slots=True)
class Known:
    """Statistics of one name server."""

    #: Smoothed round-trip time in milliseconds; None before the first reply.
    srtt_ms: float | None = None
    #: Number of consecutive queries without a reply.
    timeouts: int = 0
    #: When the server's ejection ends, in seconds on the caller's clock; until then, all other servers are preferred.
    #: 0 if the server is not ejected.
    ejected_until: float = 0.0
    #: Time until which further ejections are not reported, because a server that answers only some queries may be
    #: ejected many times per minute.
    reported_until: float = 0.0
    #: False after the server rejected a query with EDNS (FORMERR, NOTIMP or BADVERS) and answered the same query
    #: without EDNS (RFC 6891 section 7).
    edns: bool = True
    #: False after the server changed the case of the question in a reply over TCP.
    copies_case: bool = True
    #: Client cookie for this server (RFC 7873); empty before the first query with EDNS.
    client_cookie: bytes = b""
    #: Latest cookie from this server (RFC 7873); empty before the first one.
    server_cookie: bytes = b""


class Servers:
    """Statistics of name servers, keyed by address."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}

    def __repr__(self) -> str:
        unresponsive = sum(known.timeouts >= EJECT_AFTER for known in self.known.values())
        return f"<Servers known={len(self.known)} unresponsive={unresponsive}>"

    def srtt_ms(self, address: str) -> float | None:
        """Return the smoothed round-trip time in milliseconds; None before the first measurement."""
        known = self.known.get(address)
        return None if known is None else known.srtt_ms

    def speaks_edns(self, address: str) -> bool:
        """Return whether to send EDNS to this server; True until `without_edns` is called."""
        known = self.known.get(address)
        return known is None or known.edns

    def without_edns(self, address: str) -> None:
        """Record that the server answers only queries without EDNS."""
        self.get(address).edns = False

    def answered(self, address: str, rtt_ms: float) -> None:
        """Record a reply that took *rtt_ms* milliseconds, and end the server's ejection."""
        known = self.get(address)
        old = known.srtt_ms
        known.srtt_ms = rtt_ms if old is None else old + SRTT_WEIGHT * (rtt_ms - old)
        known.timeouts, known.ejected_until = 0, 0.0

    def timed_out(self, address: str, now: float) -> bool:
        """Record a time-out; return whether it ejected the server and this is the first time within `COOLDOWN` s."""
        known = self.get(address)
        known.timeouts += 1
        if known.timeouts < EJECT_AFTER:
            return False
        known.ejected_until, fresh = now + COOLDOWN, known.reported_until <= now
        if fresh:
            known.reported_until = known.ejected_until
        return fresh

    def rank(self, address: str, now: float, rng: random.Random) -> tuple[bool, float]:
        """Return a sort key: responsive servers before ejected ones, then by round-trip time.

        A server without a measurement sorts as if its round-trip time were below 1 ms, so that every server is measured
        eventually.
        """
        known = self.known.get(address)
        if known is None:
            return False, rng.random()
        return known.ejected_until > now, rng.random() if known.srtt_ms is None else known.srtt_ms

    def forgive(self) -> None:
        """End all ejections, and try EDNS, mixed case and cookies again; round-trip times are kept."""
        for known in self.known.values():
            known.timeouts, known.ejected_until, known.reported_until, known.edns = 0, 0.0, 0.0, True
            known.copies_case, known.client_cookie, known.server_cookie = True, b"", b""

    def get(self, address: str) -> Known:
        """Return the statistics of a server, creating them if necessary."""
        known = self.known.get(address)
        if known is None:
            if len(self.known) >= MAX_SERVERS:
                del self.known[next(iter(self.known))]
            known = self.known[address] = Known()
        return known
