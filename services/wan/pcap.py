"""A capture of the packets that enter the network, as a pcap file (draft-ietf-opsawg-pcap; LINKTYPE_RAW, nanoseconds).

Packets are recorded as they arrive from the sender, including those that are dropped later.  Sans-IO.  A capture is
bounded in time and size, and reports when it is full.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wan.checks import Check, address, checked, choice, port
from wan.errors import SettingError
from wireformat.ip import HeaderError, decode
from wireformat.pcap import LINKTYPE_RAW, file_header, record

#: Bytes of one capture: some 5,500 full packets.  In base64, that is less than a tenth of the host's memory.
MAX_BYTES = 8 << 20
#: Seconds of one capture, at most.
MAX_SECONDS = 600.0
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
_CHECKS: dict[str, Check] = {"host": address, "port": port, "protocol": choice(PROTOCOLS)}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which packets to record; every field that is set must match, in either direction."""

    #: Source or destination address.
    host: str | None = None
    #: Source or destination port, TCP or UDP.
    port: int | None = None
    #: icmp, tcp or udp.
    protocol: str | None = None

    @classmethod
    def of(cls, values: Any) -> "Filter":
        """Check *values* from the admin API.

        Raises:
            SettingError: a key is unknown, or a value has the wrong type or range.
        """
        if not isinstance(values, Mapping):
            raise SettingError("filter", f"filter to be an object with {', '.join(_CHECKS)}", values)
        return cls(**checked({key: value for key, value in values.items() if value is not None}, _CHECKS))

    def matches(self, packet: bytes) -> bool:
        """Return whether to record an IPv4 *packet*."""
        try:
            found = decode(packet)
        except HeaderError:
            return False
        if self.protocol and found.ip.protocol != PROTOCOLS[self.protocol]:
            return False
        if self.host and self.host not in {found.ip.source, found.ip.destination}:
            return False
        # Later fragments have no ports (RFC 791 section 3.2), so only a filter without a port matches them.
        return not self.port or self.port in {found.source[1], found.destination[1]}

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are set."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class Capture:
    """One capture, running or finished."""

    def __init__(self, now: int, seconds: float, wall_offset: int, only: Filter, max_bytes: int = MAX_BYTES) -> None:
        """Start at *now*.

        Args:
            now: nanoseconds on the router's clock.
            seconds: how long to record.
            wall_offset: nanoseconds to add to that clock to get the time since the epoch.
            only: which packets to record.
            max_bytes: maximum size of the file.
        """
        self.until = now + round(seconds * 1e9)
        self.seconds, self.filter, self.max_bytes = seconds, only, max_bytes
        self.packets, self.full, self.stopped = 0, False, False
        self._offset, self._all = wall_offset, only == Filter()
        self._records = [file_header(LINKTYPE_RAW)]
        self.size = len(self._records[0])

    def offer(self, packet: bytes, now: int) -> bool:
        """Record *packet* if it matches; return False once the capture has ended."""
        if now >= self.until or self.full or self.stopped:
            return False
        if len(packet) < 20 or not (self._all or self.filter.matches(packet)):
            return True
        if self.size + 16 + len(packet) > self.max_bytes:
            self.full = True
            return False
        self._records.append(record(now + self._offset, packet))
        self.size += 16 + len(packet)
        self.packets += 1
        return True

    def state(self, now: int) -> str:
        """Return ``running`` or ``done``."""
        return "done" if self.stopped or self.full or now >= self.until else "running"

    def file(self) -> bytes:
        """Return the pcap file so far."""
        return b"".join(self._records)

    def as_dict(self, now: int) -> dict[str, Any]:
        """Return the state that the admin API reports, without the file."""
        return {
            "state": self.state(now),
            "seconds": self.seconds,
            "seconds_left": max(0.0, round((self.until - now) / 1e9, 3)) if self.state(now) == "running" else 0.0,
            "filter": self.filter.as_dict(),
            "packets": self.packets,
            "bytes": self.size,
            "max_bytes": self.max_bytes,
            "full": self.full,
            "linktype": "raw",
        }
