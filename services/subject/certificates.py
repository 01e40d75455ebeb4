"""Finds the certificates for one DNS name in the files of a folder, with the time at which each was written.

Only certificates are read; a private key in the same file is never parsed.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

#: Extensions of files that ACME clients write: certbot (.pem), lego and Caddy (.crt), others (.cer).
SUFFIXES = {".pem", ".crt", ".cer"}
#: Maximum size of a file that is read, in bytes; a chain with its key has a few kB.
MAX_SIZE = 1 << 16
#: Maximum number of files that are examined in each scan.
MAX_FILES = 1000
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A certificate in a file; all times are in seconds since the epoch."""

    #: Serial number in lower-case hexadecimal.
    serial: str
    not_before: float
    not_after: float
    #: Time at which the file was written, as reported by the file system.
    written: float
    #: Path relative to the scanned folder.
    file: str


@dataclass(slots=True)
class Shelf:
    """The certificates for *name* found in *folder*, keyed by serial number; each with its earliest file."""

    folder: Path
    name: str
    found: dict[str, OnDisk] = field(default_factory=dict)
    #: Number of folders and files that this process has no permission to read.
    unreadable: int = 0
    _read: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def scan(self) -> None:
        """Read the files that are new or have changed since the last scan."""
        self.unreadable = 0
        files = 0
        for parent, _, names in os.walk(self.folder, onerror=self._refused):
            for each in sorted(names):
                path = Path(parent, each)
                if path.suffix not in SUFFIXES or files >= MAX_FILES:
                    continue
                files += 1
                try:
                    self._look(path)
                except PermissionError:
                    self.unreadable += 1
                except (OSError, ValueError):  # replaced while it was read, or not a certificate
                    continue

    def newest(self) -> OnDisk | None:
        """Return the certificate that was written last; None if there is none."""
        return max(self.found.values(), key=lambda each: each.written, default=None)

    def _refused(self, error: OSError) -> None:
        self.unreadable += isinstance(error, PermissionError)

    def _look(self, path: Path) -> None:
        status = path.stat()
        version = (status.st_mtime_ns, status.st_ino)
        if self._read.get(path) == version or status.st_size > MAX_SIZE:
            return
        match = _PEM.search(path.read_bytes())
        self._read[path] = version
        if match is None:
            return
        leaf = x509.load_pem_x509_certificate(match[0])
        if self.name not in _names(leaf):
            return
        before, after = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        written, serial = status.st_mtime, f"{leaf.serial_number:x}"
        known = self.found.get(serial)
        if known is None or written < known.written:
            self.found[serial] = OnDisk(serial, before, after, written, str(path.relative_to(self.folder)))


def _names(leaf: x509.Certificate) -> set[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    return set(names.get_values_for_type(x509.DNSName))
