"""Journal of a zone on disk, so that a restart loses no acknowledged change.

The file is a list of entries, each with its length and checksum: one version of the zone, then all later changes. A
change is appended and synced before it is served. When the changes take more space than the zone, the file is replaced:
the new file contains the current zone, and the latest changes as history for incremental transfers.

A crash may leave an incomplete entry at the end of the file. Opening the journal cuts off this entry, whose change was
never acknowledged.
"""

import fcntl
import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dnsmessage import Name, Record
from hostfiles.atomic import atomic_write
from nameserver.changes import Change
from nameserver.errors import NameServerError
from nameserver.zone import Zone

MAGIC = b"firstbyte journal 1\n"
#: Minimum size at which a journal is replaced, in bytes; without a minimum, journals of small zones would be rewritten
#: often.
SMALL = 1 << 20
#: Header of an entry: kind, size of the content in bytes, and checksum of kind, size and content.
_HEAD = struct.Struct("!cII")
_ZONE, _FILE, _OLD, _CHANGE = b"Z", b"F", b"H", b"C"
_RECORD = struct.Struct("!HIH")


class JournalError(NameServerError):
    """A journal cannot be read or written.  The zone in service is not affected."""


@dataclass(slots=True)
class Stored:
    """The contents of a journal."""

    zone: Zone
    #: The changes that led to *zone*, oldest first.
    changes: list[Change] = field(default_factory=list)
    #: `digest` of the zone in the master file when the file was last read.
    file: bytes = b""
    #: Number of bytes cut off at the end of the file.
    cut: int = 0


class Journal:
    """The journal of one zone.  It is locked while it is open, because two processes must not write to it."""

    def __init__(self, folder: Path, apex: Name) -> None:
        self.path = folder / f"{str(Name(apex.key)).replace('/', '%2F')}journal"
        self.apex = apex
        self._fd = -1
        #: Size of the valid part of the file, and size just after the file was last replaced, in bytes.
        self._size = self._base = 0
        #: Serial number after the last change; None if no usable file exists; the next change then creates one.
        self.serial: int | None = None
        #: `digest` of the zone in the master file, as stored with the last entry.
        self._file = b""

    def __repr__(self) -> str:
        return f"<Journal {self.path.name} serial={self.serial} size={self._size}>"

    def open(self) -> Stored | None:
        """Open the journal and return its contents; None if there is no file.

        Raises:
            JournalError: the file cannot be read, is not a journal of this zone, or is open in another process.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            data = self._reopen()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be read: {error.strerror}") from None
        stored, self._size, self._base = self._read(data)
        stored.cut = len(data) - self._size
        if stored.cut:
            self._truncate()
        self.serial, self._file = stored.zone.serial, stored.file
        return stored

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def append(self, old: Zone, change: Change, file_before: bytes, file: bytes) -> None:
        """Append *change* of the zone *old* and sync it to disk.

        *file_before* and *file* are digests (see `digest`) of the zone in the master file before and after the change.

        Raises:
            JournalError: the change cannot be stored; the journal is unchanged.
        """
        if self.serial is None:
            self._file = file_before
            self.replace(old, ())
        if self.serial != change.old:
            raise JournalError(f"{self.path}: expected a change from serial {self.serial}, got {change.old}")
        data = _entry(_CHANGE, _encode(change)) + (_entry(_FILE, file) if file != self._file else b"")
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except OSError as error:
            self._truncate()
            raise JournalError(f"{self.path}: cannot be written: {error.strerror}") from None
        self._size += len(data)
        self.serial, self._file = change.new, file

    @property
    def outgrown(self) -> bool:
        """Whether the file should be replaced, because its changes take more space than the zone."""
        return self._size > max(SMALL, 2 * self._base)

    def replace(self, zone: Zone, changes: Iterable[Change]) -> None:
        """Replace the file with a new one that contains *zone* and the latest *changes*, which led to *zone*.

        Raises:
            JournalError: the new file cannot be written; the journal is unchanged.
        """
        parts = [MAGIC, *(_entry(_OLD, _encode(each)) for each in changes)]
        parts += [_entry(_ZONE, _encode_zone(zone)), _entry(_FILE, self._file)]
        data = b"".join(parts)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self.path, data)
            self._reopen()
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be written: {error.strerror}") from None
        self._size = self._base = len(data)
        self.serial = zone.serial

    def _reopen(self) -> bytes:
        """Open and lock the file, positioned at its end, and return its content."""
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = self.path.read_bytes()
        except BlockingIOError:
            os.close(fd)
            raise JournalError(f"{self.path}: is open in another process") from None
        except OSError:
            os.close(fd)
            raise
        self.close()
        self._fd = fd
        return data

    def _truncate(self) -> None:
        """Cut off an incomplete entry; if that fails, the next change replaces the file."""
        try:
            os.ftruncate(self._fd, self._size)
            os.fsync(self._fd)
        except OSError:
            self.serial = None

    def _read(self, data: bytes) -> tuple[Stored, int, int]:
        """Return the contents, the size of the valid part of *data*, and the size before the first change."""
        if not data.startswith(MAGIC):
            raise JournalError(f"{self.path}: expected a journal, got other content")
        stored: Stored | None = None
        older: list[Change] = []
        pending: list[Change] = []
        file, size, base = b"", len(MAGIC), 0
        for kind, content, end in _entries(data):
            if kind == _ZONE:
                stored = Stored(_decode_zone(self.apex, content))
                base = end
            elif kind == _FILE:
                file = content
            else:
                (older if kind == _OLD else pending).append(_decode(content))
            size = end
        if stored is None:
            raise JournalError(f"{self.path}: expected the zone {self.apex}, got {size} valid bytes without it")
        try:
            stored.zone = stored.zone.apply(*pending)
        except NameServerError as error:
            raise JournalError(f"{self.path}: {error}") from None
        stored.changes, stored.file = older + pending, file
        return stored, size, base


def digest(zone: Zone) -> bytes:
    """Return a hash of the records of *zone*; the hash depends on the order in which the records were read."""
    found = hashlib.blake2b(digest_size=16)
    for question, packed in zone.rrsets.items():
        found.update(question + packed)
    return found.digest()


def _entry(kind: bytes, content: bytes) -> bytes:
    return _HEAD.pack(kind, len(content), zlib.crc32(content, zlib.crc32(kind))) + content


def _entries(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield kind, content and end offset of every entry before the first incomplete or damaged one."""
    at = len(MAGIC)
    while at + _HEAD.size <= len(data):
        kind, size, checksum = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        content = data[at : at + size]
        at += size
        if len(content) != size or zlib.crc32(content, zlib.crc32(kind)) != checksum:
            return
        yield kind, content, at


def _encode_zone(zone: Zone) -> bytes:
    parts = [len(zone.apex.wire).to_bytes(1, "big") + zone.apex.wire]
    for question, packed in zone.rrsets.items():
        owner = zone.spellings.get(question[:-4], question[:-4])
        parts.append(struct.pack("!HI", len(question), len(packed)) + owner + question[-4:] + packed)
    return b"".join(parts)


def _decode_zone(apex: Name, data: bytes) -> Zone:
    at = 1 + data[0]
    if data[1:at].lower() != apex.key:
        raise JournalError(f"expected a journal of {apex}, got one of {Name(data[1:at])}")
    rrsets: dict[bytes, bytes] = {}
    spellings: dict[bytes, bytes] = {}
    while at < len(data):
        size, packed = struct.unpack_from("!HI", data, at)
        at += 6
        owner, rdtype = data[at : at + size - 4], data[at + size - 4 : at + size]
        key = owner.lower()
        if key != owner:
            spellings[key] = owner
        at += size
        rrsets[key + rdtype] = data[at : at + packed]
        at += packed
    return Zone(apex, rrsets, spellings)


def _encode(change: Change) -> bytes:
    head = struct.pack("!II", len(change.deleted), len(change.added))
    records = (change.old_soa, change.new_soa, *change.deleted, *change.added)
    return head + b"".join(r.name.wire + _RECORD.pack(r.rdtype, r.ttl, len(r.rdata)) + r.rdata for r in records)


def _decode(data: bytes) -> Change:
    deleted, added = struct.unpack_from("!II", data)
    records, at = [], 8
    for _ in range(2 + deleted + added):
        end = at
        while data[end]:
            end += 1 + data[end]
        rdtype, ttl, size = _RECORD.unpack_from(data, end + 1)
        name, at = Name(data[at : end + 1]), end + 1 + _RECORD.size
        records.append(Record(name, rdtype, ttl, data[at : at + size]))
        at += size
    return Change(records[0], records[1], tuple(records[2 : 2 + deleted]), tuple(records[2 + deleted :]))
