"""What a link may be set to, and every error of the package.

The same rules hold for the file (`links`) and for the admin API (`admin`); each adds where the value stood.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from wan.damage import MODES

#: Milliseconds.  More than a minute is no network any more, and held packets fill the memory.
MAX_DELAY_MS = 60_000.0
#: Bits per second: below a thousand one full packet takes longer than TCP waits; the upper end no kernel here reaches.
MIN_RATE, MAX_RATE = 1_000, 100_000_000_000
#: Bytes waiting in front of a link with a rate.  A hundred full packets, what a plain home router holds.
DEFAULT_QUEUE = 150_000
#: Milliseconds by which a packet is held back so that others overtake it: more than a burst of packets takes.
DEFAULT_REORDER_MS = 10.0
#: What fits into a word of 16 bits.
MAX_K = 65_535
#: Bytes: at least one full packet fits, and one queue can not take the memory of the host.
MIN_QUEUE, MAX_QUEUE = 1_500, 16 << 20


class WanError(Exception):
    """Base of every error of this package."""


class SettingError(WanError):
    """A value, or a key, that a link can not have."""

    def __init__(self, key: str, expected: str, got: object) -> None:
        super().__init__(f"expected {expected}, got {got!r}")
        #: The key at fault; "" when no key in particular is.
        self.key = key
        self.expected, self.got = expected, got


class LinksFileError(WanError):
    """The links file can not be used; the message starts with FILE:LINE."""


class UnknownLinkError(WanError):
    """No link between these regions exists."""


class TunError(WanError):
    """The TUN device can not be opened."""


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How one direction of a link behaves."""

    #: Milliseconds for there and back when both directions are set alike: one direction takes half.
    rtt_ms: float = 0.0
    #: Milliseconds: each packet takes up to this much longer, drawn uniformly.  The round trip's half is the floor.
    jitter_ms: float = 0.0
    #: Probability that a packet is lost on the way, each on its own.
    loss: float = 0.0
    #: Bits per second of IP packets; None is without limit.
    rate_bps: int | None = None
    #: Bytes that may wait for their turn on a link with a rate; what does not fit is dropped.
    queue_bytes: int = DEFAULT_QUEUE
    #: Probability that a packet arrives twice.
    duplicate: float = 0.0
    #: Probability that a packet is held back, so that those behind it overtake.
    reorder: float = 0.0
    #: Milliseconds by which it is held back.
    reorder_ms: float = DEFAULT_REORDER_MS
    #: Probability of each kind of damage to a payload (`damage`).
    corrupt_bitflip: float = 0.0
    corrupt_swap16: float = 0.0
    corrupt_plusminus: float = 0.0
    corrupt_random: float = 0.0
    #: What `corrupt_plusminus` adds to one word and subtracts from another.
    corrupt_k: int = 1

    def changed(self, values: Mapping[str, Any]) -> "LinkSettings":
        """Return these settings with *values* put in.

        Raises:
            SettingError: a key is unknown, or a value has the wrong type or range.
        """
        for key in values:
            if key not in KEYS:
                raise SettingError(key, f"one of {', '.join(KEYS)}", key)
        checked: dict[str, Any] = {}
        for key, value in values.items():
            if key in PROBABILITIES:
                checked[key] = _number(key, value, 1.0, "a probability between 0 and 1")
            elif key == "rate_bps":
                checked[key] = None if value is None or value == 0 else _whole(key, value, MIN_RATE, MAX_RATE)
            elif key == "queue_bytes":
                checked[key] = _whole(key, value, MIN_QUEUE, MAX_QUEUE)
            elif key == "corrupt_k":
                checked[key] = _whole(key, value, 1, MAX_K)
            else:
                checked[key] = _number(key, value, MAX_DELAY_MS, f"milliseconds between 0 and {MAX_DELAY_MS:g}")
        return replace(self, **checked)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as the admin API shows them."""
        return {key: getattr(self, key) for key in KEYS}


#: In the order of the class, which is the order of the README's table.
KEYS = tuple(field.name for field in fields(LinkSettings))
PROBABILITIES = ("loss", "duplicate", "reorder", *(f"corrupt_{mode}" for mode in MODES))


def _number(key: str, value: object, top: float, what: str) -> float:
    # `not (… <= …)`, for NaN compares false with everything.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= top:
        raise SettingError(key, f"{key} to be {what}", value)
    return float(value)


def _whole(key: str, value: object, bottom: int, top: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not bottom <= value <= top:
        raise SettingError(key, f"{key} to be a whole number between {bottom} and {top}", value)
    return value
