"""Changes from one version of a zone to the next, and the order of serial numbers (RFC 1995, RFC 1982).

`Zone.diff` returns a change and `Zone.apply` applies it. Journals store changes; incremental transfers send them.
"""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from dnsmessage import Name, Record

#: Maximum number of records in the history of one zone; a client that is further behind gets the whole zone.
MAX_HISTORY = 20_000
_SERIALS = 1 << 32


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between two versions of a zone: deleted records and added records."""

    #: The SOA record of the old version.
    old_soa: Record
    #: The SOA record of the new version.
    new_soa: Record
    #: Deleted records other than SOA. A record whose TTL changes is both deleted and added.
    deleted: tuple[Record, ...] = ()
    #: Added records other than SOA.
    added: tuple[Record, ...] = ()

    def __repr__(self) -> str:
        return f"<Change {self.old}..{self.new} -{len(self.deleted)} +{len(self.added)}>"

    @property
    def apex(self) -> Name:
        """The zone's name."""
        return self.new_soa.name

    @property
    def old(self) -> int:
        """Serial number of the old version."""
        return serial_of(self.old_soa.rdata)

    @property
    def new(self) -> int:
        """Serial number of the new version."""
        return serial_of(self.new_soa.rdata)

    def __len__(self) -> int:
        return 2 + len(self.deleted) + len(self.added)

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in the order of an incremental transfer (RFC 1995 section 4)."""
        yield self.old_soa
        yield from self.deleted
        yield self.new_soa
        yield from self.added


class History:
    """The latest changes of one zone; each change starts from the serial number at which the previous change ends."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()
        self._records = 0

    def __repr__(self) -> str:
        return f"<History {len(self._changes)} changes, {self._records} records>"

    def __iter__(self) -> Iterator[Change]:
        """Yield the changes, oldest first."""
        return iter(self._changes)

    def add(self, change: Change) -> None:
        """Add the next change; drop the oldest changes while there are more than `MAX_HISTORY` records."""
        if self._changes and self._changes[-1].new != change.old:
            self._changes.clear()
            self._records = 0
        self._changes.append(change)
        self._records += len(change)
        while self._records > MAX_HISTORY:
            self._records -= len(self._changes.popleft())

    def since(self, serial: int) -> list[Change] | None:
        """Return the changes since *serial*, oldest first; None if the history does not reach back to *serial*."""
        found: list[Change] = []
        for change in reversed(self._changes):
            found.append(change)
            if change.old == serial:
                return found[::-1]
        return None


def serial_of(soa: bytes) -> int:
    """Return the serial number in the RDATA of an SOA record."""
    return int.from_bytes(soa[-20:-16], "big")


def with_serial(soa: bytes, serial: int) -> bytes:
    """Return the RDATA of an SOA record with another serial number."""
    return soa[:-20] + struct.pack("!I", serial) + soa[-16:]


def next_serial(serial: int) -> int:
    """Return the serial number after *serial*; 0 is skipped, because some servers treat 0 as "unknown"."""
    return serial % (_SERIALS - 1) + 1


def is_newer(serial: int, than: int) -> bool:
    """Return whether *serial* comes after *than* on the circle of 2³² numbers (RFC 1982 section 3.2)."""
    return 0 < (serial - than) % _SERIALS < _SERIALS // 2
