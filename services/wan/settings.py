"""The settings of a link, with their limits; the links file and the admin API obey the same rules."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from wan.checks import Check, checked, integer, number
from wan.damage import MODES

#: Milliseconds.  No real network takes longer than a minute, and packets in flight occupy memory.
MAX_DELAY_MS = 60_000.0
#: Bits per second.  Below 1,000, one full packet takes longer than TCP waits; no kernel here reaches the upper bound.
MIN_RATE, MAX_RATE = 1_000, 100_000_000_000
#: Bytes queued in front of a link with a rate: a hundred full packets, the queue of an ordinary home router.
DEFAULT_QUEUE = 150_000
#: Bytes: room for at least one full packet, and too few to fill the host's memory.
MIN_QUEUE, MAX_QUEUE = 1_500, 16 << 20
#: Milliseconds that a reordered packet is held back: longer than a burst of packets takes to pass.
DEFAULT_REORDER_MS = 10.0


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How one direction of a link behaves."""

    #: Round-trip time in milliseconds when both directions have the same settings; one direction takes half of it.
    rtt_ms: float = 0.0
    #: Milliseconds: the upper bound of an extra delay, drawn uniformly for each packet.
    jitter_ms: float = 0.0
    #: Probability that a packet is lost; draws are independent.
    loss: float = 0.0
    #: Bits of IP packets per second; None means unlimited.
    rate_bps: int | None = None
    #: Bytes that may queue in front of a link with a rate; packets that do not fit are dropped.
    queue_bytes: int = DEFAULT_QUEUE
    #: Probability that a packet arrives twice.
    duplicate: float = 0.0
    #: Probability that a packet is held back, so that later ones overtake it.
    reorder: float = 0.0
    #: Milliseconds that a reordered packet is held back.
    reorder_ms: float = DEFAULT_REORDER_MS
    #: Probability of each kind of payload corruption (`damage`).
    corrupt_bitflip: float = 0.0
    corrupt_swap16: float = 0.0
    corrupt_plusminus: float = 0.0
    corrupt_random: float = 0.0
    #: The amount that `corrupt_plusminus` adds to one word and subtracts from another.
    corrupt_k: int = 1

    def changed(self, values: Mapping[str, Any]) -> "LinkSettings":
        """Return a copy with *values* replaced.

        Raises:
            SettingError: a key is unknown, or a value has the wrong type or range.
        """
        return replace(self, **checked(values, CHECKS))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as the admin API reports them."""
        return asdict(self)


def _rate(key: str, value: object) -> int | None:
    """Return the rate; null and 0 both mean unlimited."""
    return None if value is None or value == 0 else integer(MIN_RATE, MAX_RATE)(key, value)


_milliseconds = number(MAX_DELAY_MS, f"milliseconds between 0 and {MAX_DELAY_MS:g}")
_probability = number(1.0, "a probability between 0 and 1")

#: In the order of the class, which is also the order of the table in the README.
CHECKS: dict[str, Check] = {
    "rtt_ms": _milliseconds,
    "jitter_ms": _milliseconds,
    "loss": _probability,
    "rate_bps": _rate,
    "queue_bytes": integer(MIN_QUEUE, MAX_QUEUE),
    "duplicate": _probability,
    "reorder": _probability,
    "reorder_ms": _milliseconds,
    **{f"corrupt_{mode}": _probability for mode in MODES},
    "corrupt_k": integer(1, 0xFFFF),  # it must fit into a 16-bit word
}
