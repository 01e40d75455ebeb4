"""One direction of one link: whether a packet arrives, when, and how often.

The model: a packet first waits for the packets before it (rate, bounded queue).  It may then be lost or corrupted, and
arrives after half the round trip plus jitter, possibly held back (reordering) or twice (duplication).

Sans-IO: time is an argument in nanoseconds.  Every impairment has its own random generator, seeded by the link and the
impairment, and draws once per packet, dropped packets included.  So for a given seed the fate of the n-th packet of a
link depends neither on traffic elsewhere nor on the other impairments.
"""

import random
from collections import deque
from typing import Any

from wan.damage import MODES
from wan.settings import LinkSettings

NS_PER_MS = 1_000_000
#: Nanoseconds per second times bits per byte: bytes * this / rate = transmission time.
_BIT_NS = 8_000_000_000
#: The counters of a link, as attributes and in the admin API.
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

#: When a packet leaves (nanoseconds on the caller's clock), and the packet.  A plain tuple, because one is made for
#: every packet and a dataclass or NamedTuple costs six times as much.
Departure = tuple[int, bytes]


class Link:
    """The path from one region to another, with its counters."""

    def __init__(self, source: str, target: str, settings: LinkSettings, *, seed: int = 0) -> None:
        """Set the link up.

        Args:
            source: region that packets come from.
            target: region that packets go to.
            settings: how the link behaves.
            seed: determines every draw, together with the two region names.
        """
        self.source, self.target = source, target
        self._seed = seed
        #: Packets and bytes that entered the link, dropped ones included.
        self.packets = self.bytes = 0
        #: Packets dropped at random, because the queue was full, and by a drop rule (`drops`).
        self.dropped_loss = self.dropped_queue = self.dropped_rule = 0
        self.duplicated = self.reordered = 0
        #: Corrupted packets by mode; packets that a mode could not corrupt are not counted.
        self.corrupted = dict.fromkeys(MODES, 0)
        #: Packets in flight.
        self.queued = 0
        #: The packets in flight that leave in order of arrival; `network` maintains it.
        self.fifo: deque[Departure] = deque()
        self.configure(settings)

    def configure(self, settings: LinkSettings) -> None:
        """Apply *settings* from the next packet on, and restart every generator, so that a run can be repeated.

        Packets in flight keep their departure time; later ones overtake them when the link became shorter.
        """
        self.settings = settings
        #: Nanoseconds from one end to the other.
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
        #: Mode, its function, its probability, the draw that decides whether, and the generator that decides where.
        self._damages = [
            (mode, damage, share, self._generator(mode).random, self._generator(f"{mode} where"))
            for mode, damage in MODES.items()
            if (share := getattr(settings, f"corrupt_{mode}"))
        ]
        chance = self._jitter or self._loss or self._duplicate or self._reorder or self._damages
        #: Whether the link does nothing but delay every packet by the same time.
        self.only_delays = not (chance or self._rate)
        #: Whether packets pass at once and unchanged.
        self.passthrough = self.only_delays and not self.delay

    def _generator(self, impairment: str) -> random.Random:
        return random.Random(f"{self._seed}/{self.source}/{self.target}/{impairment}")

    def send(self, packet: bytes, now: int) -> tuple[Departure, ...]:
        """Return the departures of a packet that enters at *now* (ns): none if it is dropped, two if duplicated."""
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
            # Round up, so that the link is never faster than its rate.
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
            # Jitter alone never reorders packets.
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
        """Return a copy of the counters, as the admin API reports them."""
        values = {name: getattr(self, name) for name in COUNTERS}
        return {"from": self.source, "to": self.target, **values, "corrupted": dict(self.corrupted)}

    @property
    def dropped(self) -> int:
        """Packets dropped for any reason."""
        return self.dropped_loss + self.dropped_queue + self.dropped_rule

    def __repr__(self) -> str:
        return f"<Link {self.source}>{self.target} packets={self.packets} queued={self.queued} dropped={self.dropped}>"
