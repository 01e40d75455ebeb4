"""A capture of what enters the wide-area network, as a pcap file (draft-ietf-opsawg-pcap; LINKTYPE_RAW, nanoseconds).

Packets are recorded as they arrive from the sender's region, those included that are dropped afterwards.  Sans-IO and
bounded: a capture ends by time, or by size, and says so.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from wan.settings import SettingError

#: Packets begin with their IPv4 header.
LINKTYPE_RAW = 101
#: File header: nanosecond magic, version 2.4, zone 0, accuracy 0, whole packets, link type.
FILE_HEADER = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, LINKTYPE_RAW)
#: Bytes of one capture; about ten thousand full packets, and in base64 still a sixth of the host's memory.
MAX_BYTES = 8 << 20
#: Seconds of one capture.
MAX_SECONDS = 600.0
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
_RECORD = struct.Struct("=IIII").pack


@dataclass(frozen=True, slots=True)
class Filter:
    """Which packets to record; every part that is set must match, in either direction."""

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
        keys = ("host", "port", "protocol")
        if not isinstance(values, Mapping):
            raise SettingError("filter", f"filter to be an object with {', '.join(keys)}", values)
        for key in values:
            if key not in keys:
                raise SettingError("filter", f"filter to have only {', '.join(keys)}", key)
        host, port, protocol = (values.get(key) for key in keys)
        if host is not None:
            try:
                host = str(IPv4Address(host if isinstance(host, str) else ""))
            except ValueError:
                raise SettingError("host", "host to be an IPv4 address", host) from None
        if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536):
            raise SettingError("port", "port to be a number between 1 and 65535", port)
        if protocol is not None and protocol not in tuple(PROTOCOLS):
            raise SettingError("protocol", f"protocol to be one of {', '.join(PROTOCOLS)}", protocol)
        return cls(host, port, protocol)

    def matches(self, packet: bytes) -> bool:
        """Return whether to record an IPv4 *packet*."""
        if self.protocol and packet[9] != PROTOCOLS[self.protocol]:
            return False
        if self.host:
            address = IPv4Address(self.host).packed
            if address not in (packet[12:16], packet[16:20]):
                return False
        if self.port:
            start = (packet[0] & 15) * 4
            # A later fragment has no ports (RFC 791 section 3.2): it is recorded with its datagram's protocol only.
            if packet[9] not in (6, 17) or packet[6] & 0x1F or packet[7]:
                return False
            port = self.port.to_bytes(2, "big")
            if port not in (packet[start : start + 2], packet[start + 2 : start + 4]):
                return False
        return True

    def as_dict(self) -> dict[str, Any]:
        """Return the parts that are set."""
        parts = {"host": self.host, "port": self.port, "protocol": self.protocol}
        return {key: value for key, value in parts.items() if value is not None}


class Capture:
    """One capture, running or over."""

    def __init__(self, now: int, seconds: float, wall_offset: int, only: Filter, max_bytes: int = MAX_BYTES) -> None:
        """Start at *now*.

        Args:
            now: nanoseconds, on the network's clock.
            seconds: how long to record.
            wall_offset: nanoseconds to add to that clock for the time since 1970.
            only: which packets to record.
            max_bytes: how large the file may grow.
        """
        self.until = now + round(seconds * 1e9)
        self.seconds, self.filter, self.max_bytes = seconds, only, max_bytes
        self.packets, self.full, self.stopped = 0, False, False
        self._offset, self._all = wall_offset, only == Filter()
        self._records = [FILE_HEADER]
        self.size = len(FILE_HEADER)

    def offer(self, packet: bytes, now: int) -> bool:
        """Record *packet* if it matches; return False when the capture is over."""
        if now >= self.until or self.full or self.stopped:
            return False
        if len(packet) < 20 or not (self._all or self.filter.matches(packet)):
            return True
        if self.size + 16 + len(packet) > self.max_bytes:
            self.full = True
            return False
        seconds, nanoseconds = divmod(now + self._offset, 1_000_000_000)
        self._records.append(_RECORD(seconds, nanoseconds, len(packet), len(packet)) + packet)
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
        """Return what the admin API shows, without the file."""
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
