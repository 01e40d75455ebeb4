"""The regions and the links between them: which link a packet takes, and which packets are due.

Sans-IO, like `link`: time is an argument in nanoseconds.  Of a packet only the IPv4 version and addresses are read
(RFC 791 section 3.1); TTL and checksum are the kernel's business, which forwards into and out of the TUN device.
"""

import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from heapq import heappop, heappush, heapreplace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from wan.drops import Drop
from wan.link import Departure, Link
from wan.settings import LinkSettings, UnknownLinkError

#: Bytes held for all links together; a host of the lab has 128 MiB for everything.
MAX_HELD = 48 << 20
#: Bytes that a held packet takes besides its own: the bytes object, the departure, its time, its place.
HELD_OVERHEAD = 150
#: Address pairs remembered; scanning clients must not fill the memory.
MAX_ROUTES = 65_536


class Network:
    """Every link; takes packets, hands them out when they are due."""

    def __init__(
        self, regions: Mapping[str, IPv4Network], links: Mapping[tuple[str, str], LinkSettings], *, seed: int = 0
    ) -> None:
        """Build a link for each ordered pair in *links*, which may name *regions* only."""
        self.regions = dict(regions)
        self.seed = seed
        self._declared = dict(links)
        self.links = {pair: self._link(*pair, settings) for pair, settings in links.items()}
        #: Traffic that stays in its region; hosts do that on-link, so it is rare.
        self.local = self._link("local", "local", LinkSettings())
        #: Packets dropped because they are no IPv4, or an address lies in no region.
        self.not_ipv4 = self.unroutable = 0
        #: Orders to drop particular segments, spent ones included, so that they can be read.
        self.drops: list[Drop] = []
        self._routes: dict[bytes, Link] = {}
        #: When the first of each queue is due.  A link's packets stay in order, so that one entry stands for them all and
        #: the heap has as many as links are busy; a packet due before the last of its link has a queue of its own.
        self._heads: list[tuple[int, int, Link, deque[Departure]]] = []
        self._count = itertools.count().__next__
        self._held_bytes = 0

    def _link(self, source: str, target: str, settings: LinkSettings) -> Link:
        return Link(source, target, settings, seed=self.seed)

    # --- packets ----------------------------------------------------------------------------------------------------

    def receive(self, packet: bytes, now: int) -> bytes | None:
        """Take a packet; return it when it goes on at once, None when it is held or dropped."""
        link = self._routes.get(packet[12:20])
        if link is None or packet[0] >> 4 != 4:
            link = self._route(packet)
            if link is None:
                return None
        link.packets += 1
        link.bytes += len(packet)
        if self.drops and any(drop.takes(packet, now) for drop in self.drops):
            link.dropped_filter += 1
            return None
        if link.straight:
            return packet
        if self._held_bytes > MAX_HELD:
            link.dropped_queue += 1
            return None
        if link.level:  # most links, most packets: what `send` would do, without the call
            link.queued += 1
            self._hold(link, (now + link.delay, packet))
            return None
        for departure in link.send(packet, now):
            self._hold(link, departure)
        return None

    def _hold(self, link: Link, departure: Departure) -> None:
        self._held_bytes += len(departure[1]) + HELD_OVERHEAD
        queue = link.waiting
        if queue:
            if departure[0] >= queue[-1][0]:
                queue.append(departure)
                return
            queue = deque()
        queue.append(departure)
        heappush(self._heads, (departure[0], self._count(), link, queue))

    def due(self, now: int) -> list[bytes]:
        """Return the packets that are due: those of one link in order, those of several link by link."""
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
        """Return when the next packet is due (ns), or None when none is held."""
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
        """Return the region that an IPv4 address (four bytes, or dotted) lies in."""
        ip = IPv4Address(address)
        return next((name for name, prefix in self.regions.items() if ip in prefix), None)

    # --- settings ---------------------------------------------------------------------------------------------------

    def link(self, source: str, target: str) -> Link:
        """Return the link from *source* to *target*.

        Raises:
            UnknownLinkError: one of them is no region, or both are the same.
        """
        for name in (source, target):
            if name not in self.regions:
                raise UnknownLinkError(f"expected a region among {', '.join(self.regions)}, got {name!r}")
        if source == target:
            raise UnknownLinkError(f"expected two regions, got {source!r} twice: inside a region there is no link")
        return self.links[source, target]

    def declared(self, source: str, target: str) -> LinkSettings:
        """Return the settings that a link had at start."""
        return self._declared[source, target]

    def restore(self) -> None:
        """Give every link that was changed its settings of the start."""
        for pair, link in self.links.items():
            if link.settings != self._declared[pair]:
                link.configure(self._declared[pair])

    def describe(self) -> Iterator[dict[str, Any]]:
        """Yield every link as the admin API shows it."""
        for pair, link in self.links.items():
            yield self.show(link, changed=link.settings != self._declared[pair])

    @staticmethod
    def show(link: Link, *, changed: bool) -> dict[str, Any]:
        """Return one link as the admin API shows it."""
        return {"from": link.source, "to": link.target, **link.settings.as_dict(), "changed": changed}

    def __len__(self) -> int:
        """Return the number of packets held."""
        return sum(link.queued for link in self.links.values())

    def __repr__(self) -> str:
        lost = sum(link.dropped for link in self.links.values())
        return f"<Network regions={len(self.regions)} links={len(self.links)} held={len(self)} dropped={lost}>"
