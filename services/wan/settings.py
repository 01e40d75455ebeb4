"""Link settings and their limits, which apply to the links file and the admin API alike."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from wan.checks import Check, checked, integer, number
from wan.damage import MODES

#: Maximum delay in milliseconds.  A minute exceeds any real network's delay, and packets in flight occupy memory.
MAX_DELAY_MS = 60_000.0
#: Rate limits in bits per second.  Below 1,000, one full packet takes longer than TCP waits for an acknowledgement;
#: the maximum is more than the kernel can forward in this lab.
MIN_RATE, MAX_RATE = 1_000, 100_000_000_000
#: Default queue size of a link with a rate, in bytes: a hundred full packets, as in an ordinary home router.
DEFAULT_QUEUE = 150_000
#: Limits of the queue size in bytes: at least one full packet, and not enough to exhaust the host's memory.
MIN_QUEUE, MAX_QUEUE = 1_500, 16 << 20
#: Default hold time of a reordered packet in milliseconds, longer than a burst of packets takes to pass.
DEFAULT_REORDER_MS = 10.0


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Settings of one direction of a link."""

    #: Round-trip time in milliseconds if both directions have the same settings; the one-way delay is half of this.
    rtt_ms: float = 0.0
    #: Maximum extra delay in milliseconds; the actual delay of each packet is drawn from a uniform distribution.
    jitter_ms: float = 0.0
    #: Probability that a packet is lost, independently of other packets.
    loss: float = 0.0
    #: Rate in bits per second, counting whole IP packets; None means unlimited.
    rate_bps: int | None = None
    #: Size in bytes of the queue in front of a link with a rate; packets that do not fit are dropped.
    queue_bytes: int = DEFAULT_QUEUE
    #: Probability that a packet is delivered twice.
    duplicate: float = 0.0
    #: Probability that a packet is held back so that later packets overtake it.
    reorder: float = 0.0
    #: Time in milliseconds for which a reordered packet is held back.
    reorder_ms: float = DEFAULT_REORDER_MS
    #: Probability that one bit of the payload is flipped (`damage`).
    corrupt_bitflip: float = 0.0
    #: Probability that two 16-bit words of the payload are swapped.
    corrupt_swap16: float = 0.0
    #: Probability that `corrupt_k` is added to one 16-bit word of the payload and subtracted from another.
    corrupt_plusminus: float = 0.0
    #: Probability that consecutive bytes of the payload are overwritten with random bytes.
    corrupt_random: float = 0.0
    #: Amount that the `plusminus` corruption adds to one 16-bit word and subtracts from another.
    corrupt_k: int = 1

    def changed(self, values: Mapping[str, Any]) -> "LinkSettings":
        """Return a copy of the settings with *values* replaced.

        Raises:
            SettingError: a key is unknown, or a value has the wrong type or range.
        """
        return replace(self, **checked(values, CHECKS))

    def as_dict(self) -> dict[str, Any]:
        """Return the settings in the admin API's format."""
        return asdict(self)


def _rate(key: str, value: object) -> int | None:
    """Validate a rate in bits per second; return None (unlimited) for null and 0."""
    return None if value is None or value == 0 else integer(MIN_RATE, MAX_RATE)(key, value)


_milliseconds = number(MAX_DELAY_MS, f"milliseconds between 0 and {MAX_DELAY_MS:g}")
_probability = number(1.0, "a probability between 0 and 1")

#: Validators, keyed by setting, in the order of the fields of `LinkSettings` and of the table in the README.
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
    "corrupt_k": integer(1, 0xFFFF),  # the maximum of a 16-bit word
}
