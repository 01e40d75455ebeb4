"""Rules that drop particular TCP segments, such as the last acknowledgement of a close (RFC 9293 section 3.6).

Random loss shows the average cost of losing packets; a rule shows what losing one particular packet does.  A rule drops
the next matching segments up to its count, and records each.  Sans-IO: time is an argument in nanoseconds.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wan.checks import Check, address, boolean, checked, integer, port
from wan.errors import SettingError
from wireformat.ip import HeaderError, decode

#: The flags that are compared; PSH, URG and the ECN bits are ignored.
FLAGS = ("fin", "syn", "rst", "ack")
#: Segments that one rule may drop, which bounds its record; for more, use `loss`.
MAX_COUNT = 1000
#: Flows whose FIN is remembered; beyond that the oldest is forgotten.
MAX_FLOWS = 4096


@dataclass(frozen=True, slots=True)
class Segment:
    """The fields of a segment that rules compare and record."""

    #: Dotted addresses, and ports.
    source: str
    source_port: int
    target: str
    target_port: int
    #: fin, syn, rst and ack, joined by "+".
    flags: str
    seq: int
    ack: int
    #: Sequence numbers that the segment occupies: its payload, plus one each for SYN and FIN.
    length: int

    @classmethod
    def of(cls, packet: bytes) -> "Segment | None":
        """Parse an IPv4 *packet*; None unless it holds a complete TCP header."""
        try:
            found = decode(packet)
        except HeaderError:
            return None
        tcp = found.tcp
        if tcp is None:
            return None
        flags = [name for name in FLAGS if name.upper() in tcp.flags]
        length = len(found.payload) + ("syn" in flags) + ("fin" in flags)
        return cls(*found.source, *found.destination, "+".join(flags), tcp.seq, tcp.ack, length)

    @property
    def has_fin(self) -> bool:
        """Whether the FIN flag is set."""
        return self.flags.startswith("fin")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which segments to drop; every field that is set must match."""

    #: Addresses of sender and receiver.
    source: str | None = None
    target: str | None = None
    #: Port at either end.
    port: int | None = None
    #: Exactly these of fin, syn, rst, ack, in this order, joined by "+".
    flags: str | None = None
    #: Match only segments that acknowledge the other side's FIN.
    acknowledges_fin: bool = False
    #: How many to drop.
    count: int = 1

    @classmethod
    def of(cls, values: Any) -> "Pattern":
        """Check *values* from the admin API; ``flags`` may be in any order.

        Raises:
            SettingError: a key is unknown, or a value has the wrong type or range.
        """
        if not isinstance(values, Mapping) or not values:
            raise SettingError("", f"a JSON object with some of {', '.join(_CHECKS)}", values)
        return cls(**checked(values, _CHECKS))


def _flags(key: str, value: object) -> str:
    named = value.split("+") if isinstance(value, str) else ()
    if not named or set(named) - set(FLAGS):
        raise SettingError(key, f"flags to be some of {', '.join(FLAGS)} joined by '+'", value)
    return "+".join(name for name in FLAGS if name in named)


_CHECKS: dict[str, Check] = {
    "source": address,
    "target": address,
    "port": port,
    "flags": _flags,
    "acknowledges_fin": boolean,
    "count": integer(1, MAX_COUNT),
}


class DropRule:
    """A pattern, and the segments dropped because of it."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        #: The dropped segments, each with its time (ns).
        self.dropped: list[tuple[int, Segment]] = []
        #: The acknowledgement number that covers a FIN seen earlier, keyed by the flow that will send it.
        self._closing: dict[tuple[str, int, str, int], int] = {}

    @property
    def spent(self) -> bool:
        """Whether the rule has dropped as many segments as it may."""
        return len(self.dropped) >= self.pattern.count

    def drops(self, packet: bytes, now: int) -> bool:
        """Return whether to drop *packet*; record it if so."""
        segment = None if self.spent else Segment.of(packet)
        if segment is None:
            return False
        matches = self._matches(segment)
        if matches:
            self.dropped.append((now, segment))
        elif segment.has_fin:
            flow = (segment.target, segment.target_port, segment.source, segment.source_port)
            if len(self._closing) >= MAX_FLOWS:
                del self._closing[next(iter(self._closing))]
            self._closing[flow] = (segment.seq + segment.length) % 2**32
        return matches

    def _matches(self, segment: Segment) -> bool:
        want = self.pattern
        if want.source not in {None, segment.source} or want.target not in {None, segment.target}:
            return False
        if want.port not in {None, segment.source_port, segment.target_port}:
            return False
        if want.flags not in {None, segment.flags}:
            return False
        if not want.acknowledges_fin:
            return True
        needed = self._closing.get((segment.source, segment.source_port, segment.target, segment.target_port))
        # Sequence numbers compare modulo 2^32 (RFC 9293 section 3.4): `ack` is at or after `needed`.
        return needed is not None and "ack" in segment.flags and (segment.ack - needed) % 2**32 < 2**31

    def as_dict(self) -> dict[str, Any]:
        """Return what the admin API reports."""
        pattern = {key: value for key, value in asdict(self.pattern).items() if value is not None}
        return {**pattern, "spent": self.spent, "dropped": [{"at_ns": at, **asdict(s)} for at, s in self.dropped]}
