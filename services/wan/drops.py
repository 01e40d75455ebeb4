"""Rules that drop or replay particular TCP segments, such as the last acknowledgement of a close (RFC 9293).

Random loss shows the average cost of packet loss; a drop rule shows the effect of losing one particular segment.  Each
rule drops the next matching segments, up to a limit, and records them.  Sans-IO: time is an argument in nanoseconds.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wan.checks import Check, address, boolean, checked, integer, port
from wan.errors import SettingError
from wireformat.ip import HeaderError, decode

#: TCP flags that rules compare; PSH, URG and the ECN flags are ignored.
FLAGS = ("fin", "syn", "rst", "ack")
#: Maximum number of segments that one rule may drop, because every dropped segment is recorded.  Use `loss` for more.
MAX_COUNT = 1000
#: Maximum delay of a replayed segment, in milliseconds. It equals the maximum segment lifetime of RFC 9293 (2 min).
MAX_REPLAY_MS = 120_000
#: Maximum number of flows for which a rule remembers the FIN; when the limit is reached, the oldest is discarded.
MAX_FLOWS = 4096


@dataclass(frozen=True, slots=True)
class Segment:
    """The TCP segment fields that drop rules compare and record."""

    #: IPv4 address of the sender, in dotted notation.
    source: str
    #: TCP port of the sender.
    source_port: int
    #: IPv4 address of the receiver, in dotted notation.
    target: str
    #: TCP port of the receiver.
    target_port: int
    #: The flags in `FLAGS` that are set, in that order, joined by "+".
    flags: str
    seq: int
    ack: int
    #: Length in sequence numbers: payload bytes, plus one for SYN and one for FIN.
    length: int

    @classmethod
    def of(cls, packet: bytes) -> "Segment | None":
        """Parse an IPv4 *packet*; return None unless it has a complete TCP header."""
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
    """The segments that a rule drops; a segment must match every field that is set."""

    #: IPv4 address of the sender.
    source: str | None = None
    #: IPv4 address of the receiver.
    target: str | None = None
    #: Source or destination port.
    port: int | None = None
    #: The exact set of flags, in the order of `FLAGS`, joined by "+".
    flags: str | None = None
    #: Match only segments that acknowledge the other side's FIN.
    acknowledges_fin: bool = False
    #: Number of segments to drop or replay.
    count: int = 1
    #: If not 0, deliver the segment, and deliver a copy of it this many milliseconds later; if 0, drop the segment.
    replay_ms: int = 0

    @classmethod
    def of(cls, values: Any) -> "Pattern":
        """Validate the JSON object of an admin request and return a pattern; ``flags`` may be in any order.

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
    "replay_ms": integer(0, MAX_REPLAY_MS),
}


class DropRule:
    """A pattern, and the segments that matched it and were dropped or replayed."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        #: Dropped segments, each with the time of the drop in nanoseconds.
        self.dropped: list[tuple[int, Segment]] = []
        #: Acknowledgement number that covers the other side's FIN, keyed by the flow that will send the
        #: acknowledgement.
        self._closing: dict[tuple[str, int, str, int], int] = {}

    @property
    def spent(self) -> bool:
        """Whether the rule has reached its limit of dropped segments."""
        return len(self.dropped) >= self.pattern.count

    def drops(self, packet: bytes, now: int) -> bool:
        """Return whether *packet* must be dropped or replayed because it matches; if so, record its segment."""
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
        # Compare sequence numbers modulo 2^32 (RFC 9293 section 3.4): true if `ack` is at or after `needed`.
        return needed is not None and "ack" in segment.flags and (segment.ack - needed) % 2**32 < 2**31

    def as_dict(self) -> dict[str, Any]:
        """Return the rule and its dropped segments in the admin API's format."""
        values = asdict(self.pattern).items()
        pattern = {key: value for key, value in values if value is not None and (value or key != "replay_ms")}
        return {**pattern, "spent": self.spent, "dropped": [{"at_ns": at, **asdict(s)} for at, s in self.dropped]}
