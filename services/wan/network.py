"""Regions and the links between them: selects the link for each packet and schedules the packet's departure.

Sans-IO, like `link`: time is an argument in nanoseconds.  Only the IPv4 version and the addresses of a packet are read
(RFC 791 section 3.1).  The kernel forwards packets into and out of the TUN device, and handles TTL and header checksum.
"""

import itertools
from collections import deque
from collections.abc import Mapping
from heapq import heappop, heappush, heapreplace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from wan.drops import DropRule
from wan.errors import UnknownLinkError
from wan.link import NS_PER_MS, Departure, Link
from wan.settings import LinkSettings

#: Maximum memory for packets in flight on all links together, in bytes.  The host has 128 MiB in total.
MAX_HELD = 48 << 20
#: Memory overhead per packet in flight, in bytes, in addition to the packet's length.
HELD_OVERHEAD = 150
#: Maximum number of address pairs whose link is cached, so that clients that scan addresses cannot exhaust memory.
MAX_ROUTES = 65_536


class Network:
    """All links of the lab: accepts packets and returns them when they are due."""

    def __init__(
        self, regions: Mapping[str, IPv4Network], links: Mapping[tuple[str, str], LinkSettings], *, seed: int = 0
    ) -> None:
        """Create one link for each ordered pair in *links*; *regions* must contain both names of each pair."""
        self.regions = dict(regions)
        self.seed = seed
        self._declared = dict(links)
        self.links = {pair: self._link(*pair, settings) for pair, settings in links.items()}
        #: Pseudo-link that counts traffic within a region.  Such traffic is rare: hosts in a region connect directly.
        self.local = self._link("local", "local", LinkSettings())
        #: Packets dropped because they are not IPv4, or because an address belongs to no region.
        self.not_ipv4 = self.unroutable = 0
        #: Drop rules for particular TCP segments; spent rules are kept so that their dropped segments can be read.
        self.rules: list[DropRule] = []
        self._routes: dict[bytes, Link] = {}
        #: Heap of queues, ordered by the departure time of their first packet.  A link's packets normally depart in
        #: order and share one queue, so the heap has one entry per busy link.  A packet that departs before an earlier
        #: packet of its link gets a queue of its own.
        self._heads: list[tuple[int, int, Link, deque[Departure]]] = []
        self._count = itertools.count().__next__
        self._held_bytes = 0

    def _link(self, source: str, target: str, settings: LinkSettings) -> Link:
        return Link(source, target, settings, seed=self.seed)

    # --- packets ----------------------------------------------------------------------------------------------------

    def receive(self, packet: bytes, now: int) -> bytes | None:
        """Accept a packet; return it if it departs immediately, or None if it is delayed or dropped."""
        link = self._routes.get(packet[12:20])
        if link is None or packet[0] >> 4 != 4:
            link = self._route(packet)
            if link is None:
                return None
        link.packets += 1
        link.bytes += len(packet)
        if self.rules and (rule := next((each for each in self.rules if each.drops(packet, now)), None)) is not None:
            if not rule.pattern.replay_ms:
                link.dropped_rule += 1
                return None
            self._replay(link, packet, now + rule.pattern.replay_ms * NS_PER_MS)
        if link.passthrough:
            return packet
        if self._held_bytes > MAX_HELD:
            link.dropped_queue += 1
            return None
        if link.only_delays:  # fast path: the same as `send`, without the call overhead
            link.queued += 1
            self._hold(link, (now + link.delay, packet))
            return None
        for departure in link.send(packet, now):
            self._hold(link, departure)
        return None

    def _hold(self, link: Link, departure: Departure) -> None:
        self._held_bytes += len(departure[1]) + HELD_OVERHEAD
        queue = link.fifo
        if queue:
            if departure[0] >= queue[-1][0]:
                queue.append(departure)
                return
            queue = deque()
        queue.append(departure)
        heappush(self._heads, (departure[0], self._count(), link, queue))

    def _replay(self, link: Link, packet: bytes, now: int) -> None:
        """Deliver a copy of *packet* as if it entered *link* at the future time *now* (ns), in a separate queue."""
        link.duplicated += 1
        link.queued += 1
        self._held_bytes += len(packet) + HELD_OVERHEAD
        at = now + link.delay
        heappush(self._heads, (at, self._count(), link, deque([(at, packet)])))

    def due(self, now: int) -> list[bytes]:
        """Return the packets that are due at time *now* (ns), in order per link."""
        heads = self._heads
        packets: list[bytes] = []
        while heads and heads[0][0] <= now:
            _, number, link, queue = heads[0]
            before, size = len(packets), 0
            while queue and queue[0][0] <= now:
                packet = queue.popleft()[1]
                size += len(packet)
                packets.append(packet)
            taken = len(packets) - before
            link.queued -= taken
            self._held_bytes -= size + taken * HELD_OVERHEAD
            if queue:
                heapreplace(heads, (queue[0][0], number, link, queue))
            else:
                heappop(heads)
        return packets

    def next_due(self) -> int | None:
        """Return the time at which the next packet is due (ns), or None if no packet is in flight."""
        return self._heads[0][0] if self._heads else None

    def _route(self, packet: bytes) -> Link | None:
        if len(packet) < 20 or packet[0] >> 4 != 4:
            self.not_ipv4 += 1
            return None
        source, target = self.region(packet[12:16]), self.region(packet[16:20])
        if source is None or target is None:
            self.unroutable += 1
            return None
        link = self.links.get((source, target), self.local)
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        self._routes[packet[12:20]] = link
        return link

    def region(self, address: bytes | str) -> str | None:
        """Return the name of the region that contains an IPv4 address (four bytes, or dotted), or None."""
        ip = IPv4Address(address)
        return next((name for name, prefix in self.regions.items() if ip in prefix), None)

    # --- settings ---------------------------------------------------------------------------------------------------

    def link(self, source: str, target: str) -> Link:
        """Return the link from region *source* to region *target*.

        Raises:
            UnknownLinkError: *source* or *target* is not a region, or both are the same.
        """
        for name in (source, target):
            if name not in self.regions:
                raise UnknownLinkError(f"expected one of the regions {', '.join(self.regions)}, got {name!r}")
        if source == target:
            raise UnknownLinkError(
                f"expected two different regions, got {source!r} twice: there is no link within a region"
            )
        return self.links[source, target]

    def restore(self, *links: Link) -> None:
        """Restore the settings from the links file for *links*, or for every changed link if none is given."""
        for link in links or filter(self._is_changed, self.links.values()):
            link.configure(self._declared[link.source, link.target])

    def describe(self, *links: Link) -> list[dict[str, Any]]:
        """Return *links*, or all links if none is given, in the admin API's format."""
        return [
            {"from": link.source, "to": link.target, **link.settings.as_dict(), "changed": self._is_changed(link)}
            for link in links or self.links.values()
        ]

    def _is_changed(self, link: Link) -> bool:
        return link.settings != self._declared[link.source, link.target]

    def __len__(self) -> int:
        """Return the number of packets in flight."""
        return sum(link.queued for link in self.links.values())

    def __repr__(self) -> str:
        lost = sum(link.dropped for link in self.links.values())
        return f"<Network regions={len(self.regions)} links={len(self.links)} held={len(self)} dropped={lost}>"
