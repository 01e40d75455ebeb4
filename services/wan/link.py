"""One direction of one link: what becomes of a packet, and when (no RFC; the model is a queue, a wire and its length).

A packet waits for the packets before it to be sent (rate, bounded queue), may be lost on the wire (loss), and arrives
after half the round trip plus jitter.  The core is sans-IO: time is an argument in nanoseconds, chance comes from
generators seeded by the link's name, so that what happens on one link does not depend on traffic elsewhere, nor one
impairment on another.  The link never looks into a packet and does not know the time; `network` hands packets
out when they are due.

`Link.send` returns departures, none or several of them, each with a packet and a time of its own: duplication adds one,
corruption changes one, and reordering lets one be due before those that came earlier.
"""

import random
from collections import deque

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
        "_delay",
        "_draw_jitter",
        "_draw_loss",
        "_jitter",
        "_last_due",
        "_loss",
        "_queue",
        "_rate",
        "_seed",
        "bytes",
        "dropped_loss",
        "dropped_queue",
        "packets",
        "queued",
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
        self.dropped_loss = self.dropped_queue = 0
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
        self._delay = round(settings.rtt_ms * NS_PER_MS / 2)
        self._jitter = round(settings.jitter_ms * NS_PER_MS)
        self._loss, self._rate, self._queue = settings.loss, settings.rate_bps, settings.queue_bytes
        self._busy_until = self._last_due = 0
        self._draw_loss = self._generator("loss").random
        self._draw_jitter = self._generator("jitter").random
        #: Whether a packet passes at once and untouched.
        self.straight = not (self._delay or self._jitter or self._loss or self._rate)

    def _generator(self, impairment: str) -> random.Random:
        return random.Random(f"{self._seed}/{self.source}/{self.target}/{impairment}")

    def send(self, packet: bytes, now: int) -> tuple[Departure, ...]:
        """Return what becomes of a packet that enters at *now* (ns): its departures, none when it is dropped."""
        at = now
        if self._rate:
            start = max(now, self._busy_until)
            waiting = (start - now) * self._rate // _BIT_NS
            if waiting and waiting + len(packet) > self._queue:
                self.dropped_queue += 1
                return ()
            # Rounded up: never faster than the rate.
            at = self._busy_until = start - (-len(packet) * _BIT_NS // self._rate)
        if self._loss and self._draw_loss() < self._loss:
            self.dropped_loss += 1
            return ()
        at += self._delay
        if self._jitter:
            at += int(self._draw_jitter() * self._jitter)
            if at < self._last_due:
                at = self._last_due  # jitter alone never lets a packet overtake another
            else:
                self._last_due = at
        self.queued += 1
        return ((at, packet),)

    def counters(self) -> dict[str, str | int]:
        """Return what the admin API shows of the link's counters."""
        return {
            "from": self.source,
            "to": self.target,
            "packets": self.packets,
            "bytes": self.bytes,
            "dropped_loss": self.dropped_loss,
            "dropped_queue": self.dropped_queue,
            "queued": self.queued,
        }

    def __repr__(self) -> str:
        dropped = self.dropped_loss + self.dropped_queue
        return f"<Link {self.source}>{self.target} packets={self.packets} queued={self.queued} dropped={dropped}>"
