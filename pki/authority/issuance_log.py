"""Issuance log: an append-only file with one entry for every certificate that the CA signs, in a hash chain.

An entry is on disk before its certificate leaves the CA; entries that are added at the same time share one write.  A
last line without a newline is an incomplete write by a process that crashed before its certificate left the CA, so the
line is removed.  Several processes may write to the same file.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authority.errors import StoreError
from authority.hash_chain import START, ChainError, Entry, line_hash, read_chain

#: Name of the log file, in the folder of the CA's key.
FILE = "issuance.log"
#: Event of an issued leaf; its facts are issuer, serial, names, not_before, not_after, sha256 (of the DER) and account.
ISSUED = "issued"
#: Event of a certificate for the CA's own use that is not in its store, such as the OCSP responder's certificate.
KEPT = "kept"


class LogError(StoreError):
    """The issuance log cannot be written; no certificate may be issued."""


class IssuanceLog:
    """An issuance log in a file, which is verified when it is opened."""

    def __init__(self, path: Path) -> None:
        """Open or create the file at *path*, remove an incomplete last line, and verify all entries.

        Raises:
            ChainError: an entry was changed, inserted or removed.
            LogError: the file cannot be read or written.
        """
        self.path = path
        #: SHA-256 of each logged certificate's DER, keyed by serial number, both in hexadecimal.
        self.certificates: dict[str, str] = {}
        self._hash, self._size, self._lines = START, 0, 0
        #: Time, event and details of the entries that `flush` will write.
        self._pending: list[tuple[float, str, dict[str, object]]] = []
        with self._opened(os.O_CREAT) as file:
            self._inode = os.fstat(file).st_ino

    def __repr__(self) -> str:
        return f"<IssuanceLog entries={self._lines} {self._hash[:8]}>"

    def __len__(self) -> int:
        return self._lines

    def append(
        self,
        now: float,
        certificate: x509.Certificate,
        names: Iterable[str],
        account: str | None,
        event: str = ISSUED,
    ) -> None:
        """Append an entry for a signed certificate; the entry is on disk when the method returns.

        Args:
            now: time of issuance, in seconds since the epoch.
            certificate: the signed certificate.
            names: DNS names in the certificate.
            account: the ACME account that ordered the certificate; None for the CA itself.
            event: `ISSUED` or `KEPT`.

        Raises:
            LogError: the entry cannot be written; the log is unchanged, and *certificate* must not be used.
            ChainError: another process wrote an entry that does not continue the chain.
        """
        self._write([(now, event, {**facts(certificate), "names": list(names), "account": account})])

    def add(self, now: float, certificate: Mapping[str, object], names: Iterable[str], account: str | None) -> None:
        """Queue an entry for the next `flush`; the certificate must not leave the CA until the entry has been flushed.

        Args:
            now: time of issuance, in seconds since the epoch.
            certificate: result of `facts` for the signed certificate.
            names: DNS names in the certificate.
            account: the ACME account that ordered the certificate; None for the CA itself.
        """
        self._pending.append((now, ISSUED, {**certificate, "names": list(names), "account": account}))

    def flush(self) -> None:
        """Write all queued entries; they are on disk when the method returns.

        Raises:
            LogError: the entries cannot be written; they are discarded, and their certificates must not be used.
            ChainError: another process wrote an entry that does not continue the chain.
        """
        if self._pending:
            pending, self._pending = self._pending, []
            self._write(pending)

    def _write(self, events: Iterable[tuple[float, str, dict[str, object]]]) -> None:
        with self._opened() as file:
            self._check(os.fstat(file))
            entries, lines, digest = list[tuple[Entry, str]](), list[str](), self._hash
            for now, event, details in events:
                entry = Entry(now, event, details, digest)
                line = entry.line()
                digest = line_hash(line)
                lines.append(f"{line}\n")
                entries.append((entry, digest))
            data = "".join(lines).encode()
            try:
                if (written := os.write(file, data)) != len(data):
                    raise OSError(f"only {written} of {len(data)} bytes were written: is the disk full?")
                os.fdatasync(file)
            except OSError:
                os.ftruncate(file, self._size)
                raise
            for entry, digest in entries:
                self._add(entry, digest)
            self._size += len(data)

    def missing(self, certificates: Iterable[tuple[str, str]]) -> list[str]:
        """Return the serial numbers of the *certificates* that the log does not contain.

        Args:
            certificates: serial number and SHA-256 of the DER, both in hexadecimal, of each certificate.

        Raises:
            LogError: the file cannot be read, for example because it was removed.
            ChainError: another process wrote an entry that does not continue the chain.
        """
        wanted = dict(certificates)
        if any(self.certificates.get(serial) != digest for serial, digest in wanted.items()):
            with self._opened():  # `_opened` reads the entries that other processes wrote
                pass
        return [serial for serial, digest in wanted.items() if self.certificates.get(serial) != digest]

    def check(self) -> None:
        """Raise `LogError` if the file was removed, replaced or truncated since it was opened."""
        try:
            self._check(self.path.stat())
        except OSError as error:
            raise LogError(f"{self.path}: {error.strerror or error}") from error

    def _check(self, status: os.stat_result) -> None:
        if status.st_ino != self._inode or status.st_size < self._size:
            raise OSError("expected the file to grow only; it was replaced or truncated")

    @contextlib.contextmanager
    def _opened(self, flags: int = 0) -> Iterator[int]:
        """Open and lock the file, read the entries that other processes wrote, and yield the file descriptor."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | flags, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)  # closing the file releases the lock
                self._catch_up(file)
                yield file
            finally:
                os.close(file)
        except OSError as error:
            raise LogError(f"{self.path}: {error.strerror or error}") from error

    def _catch_up(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size <= self._size:
            return
        with os.fdopen(os.dup(descriptor), "rb") as file:
            file.seek(self._size)
            whole, _, torn = file.read().rpartition(b"\n")
        if torn:
            os.ftruncate(descriptor, size - len(torn))
        for entry, digest in read_chain(_lines(whole), self.path, self._hash, self._lines + 1):
            self._add(entry, digest)
        self._size = size - len(torn)

    def _add(self, entry: Entry, digest: str) -> None:
        self.certificates[entry.facts.get("serial", "")] = entry.facts.get("sha256", "")
        self._hash, self._lines = digest, self._lines + 1


def fingerprint_of(certificate: x509.Certificate) -> tuple[str, str]:
    """Return a certificate's serial number and the SHA-256 of its DER, both in hexadecimal."""
    return f"{certificate.serial_number:x}", hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def facts(certificate: x509.Certificate) -> dict[str, object]:
    """Return the fields of an entry that describe a certificate, other than names and account."""
    begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    name = certificate.issuer.rfc4514_string()
    return facts_of(certificate.serial_number, name, begin, end, certificate.public_bytes(Encoding.DER))


def facts_of(serial: int, issuer: str, begin: float, end: float, der: bytes) -> dict[str, object]:
    """Like `facts`, but for a certificate that has not been parsed."""
    digest = hashlib.sha256(der).hexdigest()
    return {"serial": f"{serial:x}", "issuer": issuer, "not_before": begin, "not_after": end, "sha256": digest}


@dataclass(frozen=True, slots=True)
class Audit:
    """Result of verifying an issuance log and comparing certificates with it."""

    #: Number of intact entries.
    entries: int
    #: Error message about the first bad entry; empty if all entries are intact.
    damage: str
    #: Whether the last line is incomplete (has no newline); the CA removes such a line when it starts.
    torn: bool
    #: Serial numbers of the compared certificates that the log does not contain.
    missing: tuple[str, ...]
    #: Serial numbers in the log but not in the store, because the CA was killed before storing the certificate.
    unstored: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the hash chain is intact and the log contains every compared certificate."""
        return not self.damage and not self.missing


def audit(path: Path, stored: Iterable[tuple[str, str]], seen: Iterable[tuple[str, str]] = ()) -> Audit:
    """Verify the log at *path* without changing the file, and compare certificates with the log's intact entries.

    Args:
        path: the issuance log.
        stored: serial number and SHA-256 of the DER of every certificate in the CA's store.
        seen: serial number and SHA-256 of the DER of every certificate that servers presented.

    Raises:
        LogError: the file cannot be read.
    """
    try:
        whole, _, torn = path.read_bytes().rpartition(b"\n")
    except OSError as error:
        raise LogError(f"{path}: {error.strerror or error}") from error
    logged: dict[str, str] = {}
    kept: set[str] = set()
    entries, damage = 0, ""
    try:
        for entries, (entry, _) in enumerate(read_chain(_lines(whole), path), 1):  # noqa: B007 - `entries` counts the intact entries and is used after the loop
            serial = entry.facts.get("serial", "")
            logged[serial] = entry.facts.get("sha256", "")
            kept |= {serial} if entry.event == KEPT else set()
    except ChainError as error:
        damage = str(error)
    known = dict(stored)
    missing = dict.fromkeys(serial for serial, digest in (*known.items(), *seen) if logged.get(serial) != digest)
    return Audit(entries, damage, bool(torn), tuple(missing), tuple(logged.keys() - known.keys() - kept))


def _lines(text: bytes) -> list[str]:
    return text.decode(errors="replace").split("\n") if text else []
