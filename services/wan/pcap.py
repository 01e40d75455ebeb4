"""Packet capture at the entrance of the network, as a pcap file (draft-ietf-opsawg-pcap; LINKTYPE_RAW, nanoseconds).

Packets are recorded as they arrive from the sender, including packets that a link drops later.  A capture has limits
on time and size, and reports when it is full.  Sans-IO.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wan.checks import Check, address, checked, choice, port
from wan.errors import SettingError
from wireformat.ip import HeaderError, decode
from wireformat.pcap import LINKTYPE_RAW, file_header, record

#: Maximum file size in bytes: about 5,500 full-size packets.  In base64, it is under a tenth of the host's memory.
MAX_BYTES = 8 << 20
#: Maximum duration of one capture, in seconds.
MAX_SECONDS = 600.0
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
_CHECKS: dict[str, Check] = {"host": address, "port": port, "protocol": choice(PROTOCOLS)}


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects packets to record; a packet must match every field that is set, in either direction."""

    #: Source or destination IPv4 address.
    host: str | None = None
    #: Source or destination port of TCP or UDP.
    port: int | None = None
    #: Protocol name: icmp, tcp or udp.
    protocol: str | None = None

    @classmethod
    def of(cls, values: Any) -> "Filter":
        """Validate the filter object of an admin request and return the filter.

        Raises:
            SettingError: a key is unknown, or a value has the wrong type or range.
        """
        if not isinstance(values, Mapping):
            raise SettingError("filter", f"filter to be an object with {', '.join(_CHECKS)}", values)
        return cls(**checked({key: value for key, value in values.items() if value is not None}, _CHECKS))

    def matches(self, packet: bytes) -> bool:
        """Return whether an IPv4 *packet* matches the filter."""
        try:
            found = decode(packet)
        except HeaderError:
            return False
        if self.protocol and found.ip.protocol != PROTOCOLS[self.protocol]:
            return False
        if self.host and self.host not in {found.ip.source, found.ip.destination}:
            return False
        # Fragments after the first have no ports (RFC 791 section 3.2), so they match only filters without a port.
        return not self.port or self.port in {found.source[1], found.destination[1]}

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are set, keyed by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}


class Capture:
    """A packet capture, running or finished."""

    def __init__(self, now: int, seconds: float, wall_offset: int, only: Filter, max_bytes: int = MAX_BYTES) -> None:
        """Start a capture at time *now*.

        Args:
            now: nanoseconds on the router's clock.
            seconds: duration of the capture.
            wall_offset: nanoseconds to add to the router's clock to get the time since the epoch.
            only: filter for the packets to record.
            max_bytes: maximum size of the pcap file.
        """
        self.until = now + round(seconds * 1e9)
        self.seconds, self.filter, self.max_bytes = seconds, only, max_bytes
        self.packets, self.full, self.stopped = 0, False, False
        self._offset, self._all = wall_offset, only == Filter()
        self._records = [file_header(LINKTYPE_RAW)]
        self.size = len(self._records[0])

    def offer(self, packet: bytes, now: int) -> bool:
        """Record *packet* if it matches the filter; return False if the capture has ended."""
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
        """Return a pcap file with the packets recorded so far."""
        return b"".join(self._records)

    def as_dict(self, now: int) -> dict[str, Any]:
        """Return the capture's state in the admin API's format, without the packets."""
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
