"""One direction of one link: what becomes of a packet, and when (no RFC; the model is a queue, a wire and its length).

A packet waits for the packets before it to be sent (rate, bounded queue), may be lost on the wire (loss) or damaged
there (corruption), and arrives after half the round trip plus jitter, perhaps held back (reordering), perhaps twice
(duplication).  The core is sans-IO: time is an argument in nanoseconds, chance comes from
generators seeded by the link's name, so that what happens on one link does not depend on traffic elsewhere, nor one
impairment on another: each of them draws once for every packet that enters, whatever becomes of it, so the n-th packet
of a link has one fate for one seed.  Only `damage` looks into a packet; `network` hands packets out when they are due.
"""

import random
from collections import deque
from typing import Any

from wan.damage import MODES
from wan.settings import LinkSettings

NS_PER_MS = 1_000_000
#: Nanoseconds per second times bits per byte: bytes * this / rate = time on the wire.
_BIT_NS = 8_000_000_000


#: A packet that leaves: when (nanoseconds on the clock that was passed in), and what.  A plain tuple, since one is made
#: for every packet: a dataclass or NamedTuple costs six times as much.
Departure = tuple[int, bytes]


class Link:
    """The way from one region to another; counts what passed and what did not."""

    __slots__ = (
        "_busy_until",
        "_damages",
        "_draw_duplicate",
        "_draw_jitter",
        "_draw_loss",
        "_draw_reorder",
        "_duplicate",
        "_jitter",
        "_k",
        "_last_due",
        "_loss",
        "_queue",
        "_rate",
        "_reorder",
        "_reorder_ns",
        "_seed",
        "bytes",
        "corrupted",
        "delay",
        "dropped_filter",
        "dropped_loss",
        "dropped_queue",
        "duplicated",
        "level",
        "packets",
        "queued",
        "reordered",
        "settings",
        "source",
        "straight",
        "target",
        "waiting",
    )

    def __init__(self, source: str, target: str, settings: LinkSettings, *, seed: int = 0) -> None:
        """Set the link up.

        Args:
            source: region that packets come from.
            target: region that they go to.
            settings: how the link behaves.
            seed: together with the regions' names, determines every draw.
        """
        self.source, self.target = source, target
        self._seed = seed
        #: Packets and bytes that entered the link, dropped ones included.
        self.packets = self.bytes = 0
        #: Dropped by chance, for want of room, and by an order (`drops`).
        self.dropped_loss = self.dropped_queue = self.dropped_filter = 0
        #: Packets that arrive twice, and that were held back.
        self.duplicated = self.reordered = 0
        #: Packets damaged, by mode; those that a mode could not damage do not count.
        self.corrupted = dict.fromkeys(MODES, 0)
        #: Packets on the way now.
        self.queued = 0
        #: Those of them that leave in the order in which they came; kept by `network`.
        self.waiting: deque[Departure] = deque()
        self.configure(settings)

    def configure(self, settings: LinkSettings) -> None:
        """Behave by *settings* from the next packet on, and restart every draw, so that a run can be repeated.

        Packets on the way keep their time; a later one may overtake them when the link became shorter.
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
        #: Mode, its function, its probability, what draws whether, and what draws where.
        self._damages = [
            (mode, damage, share, self._generator(mode).random, self._generator(f"{mode} where"))
            for mode, damage in MODES.items()
            if (share := getattr(settings, f"corrupt_{mode}"))
        ]
        chance = self._jitter or self._loss or self._duplicate or self._reorder or self._damages
        #: Whether a packet is only held for a fixed time.
        self.level = not (chance or self._rate)
        #: Whether a packet passes at once and untouched.
        self.straight = self.level and not self.delay

    def _generator(self, impairment: str) -> random.Random:
        return random.Random(f"{self._seed}/{self.source}/{self.target}/{impairment}")

    def send(self, packet: bytes, now: int) -> tuple[Departure, ...]:
        """Return what becomes of a packet that enters at *now* (ns): its departures, none when it is dropped."""
        if self.level:
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
            # Rounded up: never faster than the rate.
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
            # Jitter alone never lets a packet overtake another.
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
        """Return what the admin API shows of the link's counters."""
        return {
            "from": self.source,
            "to": self.target,
            "packets": self.packets,
            "bytes": self.bytes,
            "dropped_loss": self.dropped_loss,
            "dropped_queue": self.dropped_queue,
            "dropped_filter": self.dropped_filter,
            "duplicated": self.duplicated,
            "reordered": self.reordered,
            "corrupted": dict(self.corrupted),
            "queued": self.queued,
        }

    @property
    def dropped(self) -> int:
        """Packets that did not arrive, for whatever reason."""
        return self.dropped_loss + self.dropped_queue + self.dropped_filter

    def __repr__(self) -> str:
        return f"<Link {self.source}>{self.target} packets={self.packets} queued={self.queued} dropped={self.dropped}>"
