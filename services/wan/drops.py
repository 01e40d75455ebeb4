"""Losing one particular TCP segment on purpose, such as the last acknowledgement of a close (RFC 9293 section 3.6).

Chance shows what loss costs on average; this shows what one loss does.  A drop takes the next segments that match, as
many as it was told to, keeps a record of each, and is then spent.  Sans-IO: time is an argument in nanoseconds.
"""

import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from typing import Any

from wan.damage import TCP
from wan.settings import SettingError

#: Bits of the flags octet that say what a segment is; PSH, URG and ECN say how to treat it and are not compared.
FLAGS = {"fin": 0x01, "syn": 0x02, "rst": 0x04, "ack": 0x10}
#: Segments that one drop may take, so that its record stays small; for more there is `loss`.
MAX_COUNT = 1000
#: Flows whose FIN is remembered; the oldest goes first.
MAX_FLOWS = 4096
#: Ports, sequence number, acknowledgement number, data offset, flags (RFC 9293 section 3.1).
_HEADER = struct.Struct("!HHIIBB").unpack_from
_KEYS = ("source", "target", "port", "flags", "acknowledges_fin", "count")


@dataclass(frozen=True, slots=True)
class Segment:
    """What a drop looks at in one segment, and what it records of it."""

    #: Dotted addresses, and ports.
    source: str
    source_port: int
    target: str
    target_port: int
    #: fin, syn, rst and ack, joined by "+".
    flags: str
    seq: int
    ack: int
    #: Sequence numbers that the segment takes: its payload, and one each for SYN and FIN.
    length: int

    @classmethod
    def of(cls, packet: bytes) -> "Segment | None":
        """Read an IPv4 *packet*; None when it holds no whole TCP header."""
        if len(packet) < 40 or packet[0] >> 4 != 4 or packet[9] != TCP or packet[6] & 0x1F or packet[7]:
            return None
        start, end = (packet[0] & 15) * 4, int.from_bytes(packet[2:4], "big")
        if start < 20 or not start + 20 <= end <= len(packet):
            return None
        source_port, target_port, seq, ack, offset, bits = _HEADER(packet, start)
        data = end - start - (offset >> 4) * 4
        if offset >> 4 < 5 or data < 0:
            return None
        return cls(
            str(IPv4Address(packet[12:16])),
            source_port,
            str(IPv4Address(packet[16:20])),
            target_port,
            "+".join(name for name, bit in FLAGS.items() if bits & bit),
            seq,
            ack,
            data + bool(bits & FLAGS["syn"]) + bool(bits & FLAGS["fin"]),
        )

    @property
    def has_fin(self) -> bool:
        """Whether the sender is done."""
        return self.flags.startswith("fin")


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which segments to drop; every part that is set must match."""

    #: Addresses of sender and receiver.
    source: str | None = None
    target: str | None = None
    #: Port at either end.
    port: int | None = None
    #: Exactly these of fin, syn, rst, ack, in this order, joined by "+".
    flags: str | None = None
    #: Only what acknowledges the FIN that the other side has sent.
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
            raise SettingError("", f"a JSON object with some of {', '.join(_KEYS)}", values)
        checked: dict[str, Any] = {}
        for key, value in values.items():
            if key in {"source", "target"}:
                checked[key] = _address(key, value)
            elif key == "port":
                checked[key] = _number(key, value, 65_535)
            elif key == "count":
                checked[key] = _number(key, value, MAX_COUNT)
            elif key == "flags":
                named = value.split("+") if isinstance(value, str) else ()
                if not named or set(named) - FLAGS.keys():
                    raise SettingError(key, f"flags to be some of {', '.join(FLAGS)} joined by '+'", value)
                checked[key] = "+".join(name for name in FLAGS if name in named)
            elif key == "acknowledges_fin":
                if not isinstance(value, bool):
                    raise SettingError(key, "acknowledges_fin to be true or false", value)
                checked[key] = value
            else:
                raise SettingError(key, f"one of {', '.join(_KEYS)}", key)
        return cls(**checked)


class Drop:
    """One order to drop segments, until it has dropped as many as it was told to."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        #: What was dropped: when (ns), and what.
        self.taken: list[tuple[int, Segment]] = []
        #: By flow, in the direction of the acknowledgement: the number that acknowledges the FIN seen.
        self._closed: dict[tuple[str, int, str, int], int] = {}

    @property
    def spent(self) -> bool:
        """Whether it has dropped all that it was told to."""
        return len(self.taken) >= self.pattern.count

    def takes(self, packet: bytes, now: int) -> bool:
        """Return whether *packet* is to be dropped, and record it if so."""
        segment = None if self.spent else Segment.of(packet)
        if segment is None:
            return False
        matches = self._matches(segment)
        if matches:
            self.taken.append((now, segment))
        elif segment.has_fin:
            flow = (segment.target, segment.target_port, segment.source, segment.source_port)
            if len(self._closed) >= MAX_FLOWS:
                del self._closed[next(iter(self._closed))]
            self._closed[flow] = (segment.seq + segment.length) % 2**32
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
        wanted = self._closed.get((segment.source, segment.source_port, segment.target, segment.target_port))
        # Numbers are compared modulo 2^32 (RFC 9293 section 3.4): at or after the wanted one.
        return wanted is not None and "ack" in segment.flags and (segment.ack - wanted) % 2**32 < 2**31

    def as_dict(self) -> dict[str, Any]:
        """Return what the admin API shows."""
        pattern = {key: value for key, value in asdict(self.pattern).items() if value is not None}
        return {**pattern, "spent": self.spent, "taken": [{"at_ns": at, **asdict(s)} for at, s in self.taken]}


def _address(key: str, value: object) -> str:
    try:
        return str(IPv4Address(value if isinstance(value, str) else ""))
    except ValueError:
        raise SettingError(key, f"{key} to be an IPv4 address", value) from None


def _number(key: str, value: object, top: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= top:
        raise SettingError(key, f"{key} to be a whole number between 1 and {top}", value)
    return value
