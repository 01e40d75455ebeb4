"""One direction of a link: decides whether a packet is delivered, when, and how many times.

A packet first waits until the link has sent the packets queued before it (configured rate, bounded queue).  Then it may
be lost or corrupted.  Unless lost, it arrives after half the round-trip time plus jitter; it may be held back longer
(reordering) or be delivered twice (duplication).

Sans-IO: time is an argument in nanoseconds.  Every impairment has its own random generator, seeded with the link and
the impairment, that draws once per packet, including packets that are dropped.  So for a given seed, the treatment of
the n-th packet of a link depends neither on other links' traffic nor on the other impairments.
"""

import random
from collections import deque
from typing import Any

from wan.damage import MODES
from wan.settings import LinkSettings

NS_PER_MS = 1_000_000
#: 10^9 nanoseconds per second times 8 bits per byte, so that length * _BIT_NS / rate is the transmission time in ns.
_BIT_NS = 8_000_000_000
#: Names of the link counters, used for attributes and in the admin API.
COUNTERS = (
    "packets",
    "bytes",
    "dropped_loss",
    "dropped_queue",
    "dropped_rule",
    "duplicated",
    "reordered",
    "corrupted",
    "queued",
)

#: Departure time in nanoseconds on the caller's clock, and the packet.  This is a plain tuple because one is created
#: for every packet, and creating a dataclass or NamedTuple takes six times as long.
Departure = tuple[int, bytes]


class Link:
    """The path from one region to another, with its counters."""

    def __init__(self, source: str, target: str, settings: LinkSettings, *, seed: int = 0) -> None:
        """Create an idle link.

        Args:
            source: name of the region that packets come from.
            target: name of the region that packets go to.
            settings: delay, rate and impairments.
            seed: seeds the random generators, together with the two region names.
        """
        self.source, self.target = source, target
        self._seed = seed
        #: Packets and bytes that entered the link, including those that were dropped later.
        self.packets = self.bytes = 0
        #: Packets dropped by random loss, by a full queue, and by a drop rule (`drops`).
        self.dropped_loss = self.dropped_queue = self.dropped_rule = 0
        self.duplicated = self.reordered = 0
        #: Number of corrupted packets, keyed by mode; packets that a mode was unable to corrupt are not counted.
        self.corrupted = dict.fromkeys(MODES, 0)
        #: Number of packets in flight.
        self.queued = 0
        #: Packets in flight that depart in order of arrival; maintained by `network`.
        self.fifo: deque[Departure] = deque()
        self.configure(settings)

    def configure(self, settings: LinkSettings) -> None:
        """Apply *settings* to all later packets, and restart the random generators to make runs repeatable.

        Packets in flight keep their departure times, so later packets overtake them if the new delay is shorter.
        """
        self.settings = settings
        #: One-way delay in nanoseconds.
        self.delay = round(settings.rtt_ms * NS_PER_MS / 2)
        self._jitter = round(settings.jitter_ms * NS_PER_MS)
        self._loss, self._rate, self._queue = settings.loss, settings.rate_bps, settings.queue_bytes
        self._duplicate, self._reorder = settings.duplicate, settings.reorder
        self._reorder_ns, self._k = round(settings.reorder_ms * NS_PER_MS), settings.corrupt_k
        self._busy_until = self._last_due = 0
        self._draw_loss = self._generator("loss").random
        self._draw_jitter = self._generator("jitter").random
        self._draw_duplicate = self._generator("duplicate").random
        self._draw_reorder = self._generator("reorder").random
        #: For each active corruption mode: its name, corruption function and probability; the function that draws
        #: the number compared with the probability; and the random number generator for the position.
        self._damages = [
            (mode, damage, share, self._generator(mode).random, self._generator(f"{mode} where"))
            for mode, damage in MODES.items()
            if (share := getattr(settings, f"corrupt_{mode}"))
        ]
        chance = self._jitter or self._loss or self._duplicate or self._reorder or self._damages
        #: Whether the link adds a constant delay to every packet and has no other effect.
        self.only_delays = not (chance or self._rate)
        #: Whether the link forwards packets immediately and unchanged.
        self.passthrough = self.only_delays and not self.delay

    def _generator(self, impairment: str) -> random.Random:
        return random.Random(f"{self._seed}/{self.source}/{self.target}/{impairment}")

    def send(self, packet: bytes, now: int) -> tuple[Departure, ...]:
        """Return the departures of a packet that enters at time *now* (ns): empty if dropped, two if duplicated."""
        if self.only_delays:
            self.queued += 1
            return ((now + self.delay, packet),)
        lost = self._loss and self._draw_loss() < self._loss
        late = self._reorder and self._draw_reorder() < self._reorder
        twice = self._duplicate and self._draw_duplicate() < self._duplicate
        jitter = int(self._draw_jitter() * self._jitter) if self._jitter else 0
        damages = [each for each in self._damages if each[3]() < each[2]]
        at = now
        if self._rate:
            start = max(now, self._busy_until)
            waiting = (start - now) * self._rate // _BIT_NS
            if waiting and waiting + len(packet) > self._queue:
                self.dropped_queue += 1
                return ()
            # Round the transmission time up, so that the link never exceeds its rate.
            at = self._busy_until = start - (-len(packet) * _BIT_NS // self._rate)
        if lost:
            self.dropped_loss += 1
            return ()
        for mode, damage, _, _, where in damages:
            damaged = damage(packet, where, self._k)
            if damaged is not None:
                packet = damaged
                self.corrupted[mode] += 1
        at += self.delay + jitter
        if self._jitter:
            # Keep arrival order: jitter alone does not reorder packets.
            at = self._last_due = max(at, self._last_due)
        if late:
            self.reordered += 1
            at += self._reorder_ns
        self.queued += 1
        if not twice:
            return ((at, packet),)
        self.duplicated += 1
        self.queued += 1
        return ((at, packet), (at, packet))

    def counters(self) -> dict[str, Any]:
        """Return a copy of the link's counters in the admin API's format."""
        values = {name: getattr(self, name) for name in COUNTERS}
        return {"from": self.source, "to": self.target, **values, "corrupted": dict(self.corrupted)}

    @property
    def dropped(self) -> int:
        """Number of packets dropped for any reason."""
        return self.dropped_loss + self.dropped_queue + self.dropped_rule

    def __repr__(self) -> str:
        return f"<Link {self.source}>{self.target} packets={self.packets} queued={self.queued} dropped={self.dropped}>"
