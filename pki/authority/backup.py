"""Backup and restore of the CA: issuing CAs with their encrypted keys, the store and the issuance log, in one tar file.

A backup that is made while the CA runs is consistent: the store is copied before the log, so the log contains every
certificate in the copy.  Passphrase, root and trust anchor are not part of a backup.  `restore` validates everything
before it writes the first file; the CA must not run during a restoration.
"""

import contextlib
import hashlib
import io
import json
import re
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from authority.errors import AuthorityError
from authority.issuance_log import FILE, audit, fingerprint_of
from authority.keys import ACTIVE, active_number, issuing_numbers, load_issuer
from authority.store import Store
from hostfiles.atomic import atomic_write

#: Name of the database (in the backup and in the CA's folder), and of the backup's list of files with their hashes.
STORE, MANIFEST = "store.sqlite", "manifest.json"
#: Names of the other files in a backup.
FILES = re.compile(r"store\.sqlite|issuance\.log|active|issuing[a-z0-9.-]*")
#: Version of the format.
VERSION = 1
#: Maximum size of a file in a backup, in bytes; a million certificates need less than two gigabytes.
MAX_FILE = 4 << 30
#: Mode of all files of the CA.
MODE = 0o600


class BackupError(AuthorityError):
    """A backup is damaged, or belongs to another lab."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Summary of a backup."""

    #: Number of issuing CAs.
    issuers: int
    #: Number of certificates in the store.
    certificates: int
    #: Number of entries of the issuance log.
    entries: int


def backup(ca: Path, out: IO[bytes], now: float) -> Contents:
    """Write a backup of the CA's folder *ca* to *out*; *now* is the time in seconds since the epoch.

    Raises:
        AuthorityError: a file cannot be read, or the files are inconsistent.
    """
    with _errors(ca), tempfile.TemporaryDirectory(dir=ca, prefix=".backup-") as name:
        copy = Path(name)
        _copy_store(ca / STORE, copy / STORE)
        whole, _, _ = (ca / FILE).read_bytes().rpartition(b"\n")  # an incomplete last line is not part of the log
        (copy / FILE).write_bytes(whole + b"\n" if whole else b"")
        for each in _issuing(ca):
            (copy / each.name).write_bytes(each.read_bytes())
        contents = _check(copy)
        hashes = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in sorted(copy.iterdir())}
        manifest = json.dumps({"version": VERSION, "at": now, "files": hashes}, indent=2).encode()
        with tarfile.open(fileobj=out, mode="w|") as archive:
            for file, content in ((MANIFEST, manifest), *((each, (copy / each).read_bytes()) for each in hashes)):
                entry = tarfile.TarInfo(file)
                entry.size, entry.mode, entry.mtime = len(content), MODE, int(now)
                archive.addfile(entry, io.BytesIO(content))
    return contents


def restore(
    source: IO[bytes], ca: Path, passphrase_file: Path, trust: Path, *, discard_newer: bool = False
) -> Contents:
    """Replace the files in the CA's folder *ca* by those of the backup *source*.

    Args:
        source: the backup.
        ca: the CA's folder, which may be empty.
        passphrase_file: passphrase of the issuing keys; the keys in the backup must be encrypted with it.
        trust: root certificates; each issuing CA in the backup must be signed by one of them.
        discard_newer: whether the CA may forget certificates that it issued after the backup.

    Raises:
        AuthorityError: the backup is damaged or must not be restored here; nothing was written.
    """
    with _errors(ca), tempfile.TemporaryDirectory(dir=ca, prefix=".restore-") as name:
        copy = Path(name)
        _extract(source, copy)
        contents = _check(copy)
        roots = x509.load_pem_x509_certificates(trust.read_bytes())
        for number in issuing_numbers(copy):
            issuer = load_issuer(copy, passphrase_file, number)
            if not any(_signed_by(each, root) for each in issuer.chain for root in roots):
                raise BackupError(f"expected issuing CAs of {trust}; issuing CA {number} is of another lab")
        if not discard_newer and (newer := _newer(ca / FILE, copy / FILE)):
            raise BackupError(
                f"{newer} certificates were issued to clients since this backup: restore with --discard-newer to "
                "forget them"
            )
        for suffix in ("-wal", "-shm"):  # SQLite's files that belong to the replaced database
            (ca / f"{STORE}{suffix}").unlink(missing_ok=True)
        kept = {each.name for each in copy.iterdir()}
        for each in sorted(copy.iterdir()):
            atomic_write(ca / each.name, each.read_bytes(), MODE)
        for each in _issuing(ca):
            if each.name not in kept:
                each.unlink()
    return contents


def _issuing(folder: Path) -> list[Path]:
    return [*sorted(folder.glob("issuing*")), *folder.glob(ACTIVE)]


def _newer(log: Path, saved: Path) -> int:
    """Return the number of clients' certificates that have an entry in *log* but not in *saved*."""
    known = set(saved.read_bytes().split(b"\n"))
    count = 0
    for line in log.read_bytes().split(b"\n") if log.exists() else ():
        if line not in known:
            with contextlib.suppress(ValueError, AttributeError):  # a damaged line cannot be counted
                count += json.loads(line).get("account") is not None
    return count


def _copy_store(source: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=rw", uri=True)) as one,
        contextlib.closing(sqlite3.connect(target)) as other,
    ):
        one.backup(other)


def _check(folder: Path) -> Contents:
    """Return a summary of the unpacked backup in *folder*; raise `AuthorityError` if its files are inconsistent."""
    numbers = issuing_numbers(folder)
    if active_number(folder) not in numbers:
        raise BackupError(f"expected the issuing CA {active_number(folder)}, which signs; there are {numbers}")
    with contextlib.closing(Store(folder / STORE)) as store:
        stored = [x509.load_pem_x509_certificate(pem.encode()) for _, pem in store.leaves_after(0)]
    found = audit(folder / FILE, map(fingerprint_of, stored))
    if not found.ok or found.torn:
        reason = found.damage or f"certificates without an entry: {', '.join(found.missing[:3])}"
        raise BackupError(f"expected an intact issuance log with all certificates of the store: {reason}")
    return Contents(len(numbers), len(stored), found.entries)


def _extract(source: IO[bytes], folder: Path) -> None:
    """Write the files of the backup *source* to *folder*; raise `BackupError` unless they match its manifest."""
    hashes: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            for number, entry in enumerate(archive):
                content = archive.extractfile(entry)
                if content is None or entry.size > MAX_FILE:
                    raise BackupError(f"expected regular files in a backup, got {entry.name!r}"[:200])
                data = content.read()
                if number == 0:
                    manifest = json.loads(data) if entry.name == MANIFEST else {}
                    if manifest.get("version") != VERSION:
                        raise BackupError(f"expected a backup with a manifest of version {VERSION} as first file")
                    hashes = dict(manifest["files"])
                elif not FILES.fullmatch(entry.name):
                    raise BackupError(f"expected a file of a CA, got {entry.name!r}"[:200])
                elif hashlib.sha256(data).hexdigest() != hashes.get(entry.name):
                    raise BackupError(f"{entry.name} does not have the hash that the manifest gives")
                else:
                    (folder / entry.name).write_bytes(data)
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BackupError(f"expected a backup that `authority backup` wrote: {error}"[:200]) from None
    if missing := [each for each in hashes if not (folder / each).exists()]:
        raise BackupError(f"the backup is incomplete: it lacks {', '.join(missing)}")


def _signed_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


@contextlib.contextmanager
def _errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise BackupError(f"{folder}: {error}") from error
