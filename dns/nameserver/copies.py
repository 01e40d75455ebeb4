"""Copies of secondary zones on disk, so that a restarted server can answer before the first transfer.

A copy is a master file with a checksum; any name server can serve it, even as a primary. The modification time of the
file is the time at which a primary last confirmed the zone; the expiry time of the zone is computed from that time.
"""

import hashlib
import os
from pathlib import Path

from dnsmessage import Name, rdtypes
from hostfiles.atomic import atomic_write
from nameserver.errors import NameServerError
from nameserver.master_file import parse
from nameserver.zone import Zone, type_of, unpack

_HEAD = b"; SHA-256 of the following lines: "


class CopyError(NameServerError):
    """A copy is unreadable or damaged."""


def path_of(folder: Path, apex: Name) -> Path:
    """Return the path of the copy of the zone *apex* in *folder*; slashes in names are escaped."""
    return folder / f"{str(apex).replace('/', '%2F')}copy"


def write(path: Path, zone: Zone, confirmed: float) -> None:
    """Write *zone*, which a primary confirmed at *confirmed* (seconds since 1970).

    Raises:
        OSError: the file cannot be written; an older copy remains unchanged.
    """
    # The names are not sorted: sorting those of a large zone would hold the interpreter lock and delay queries.
    lines = [
        f"{rrset.name} {rrset.ttl} IN {rdtypes.to_text(rrset.rdtype)} {text}\n"
        for question, packed in zone.rrsets.items()
        for rrset in (unpack(zone.name(question[:-4]), type_of(question), packed),)
        for text in rrset.text()
    ]
    body = "".join(lines).encode()
    atomic_write(path, _HEAD + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    confirm(path, confirmed)


def confirm(path: Path, confirmed: float) -> None:
    """Set the time (seconds since 1970) at which a primary confirmed the copy *path*; raise `OSError` on failure."""
    os.utime(path, (confirmed, confirmed))


def read(path: Path, apex: Name) -> tuple[Zone, float] | None:
    """Return the zone in *path* and when a primary last confirmed it (seconds since 1970); None if there is no copy.

    Raises:
        CopyError: the file cannot be read, or its checksum is wrong.
    """
    try:
        content, confirmed = path.read_bytes(), path.stat().st_mtime
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CopyError(f"{path}: cannot be read: {error.strerror}") from None
    head, _, body = content.partition(b"\n")
    if head != _HEAD + hashlib.sha256(body).hexdigest().encode():
        raise CopyError(f"{path}: expected the checksum of its content in the first line: the file is damaged")
    return parse(str(apex), body.decode("ascii"), str(path)), confirmed
