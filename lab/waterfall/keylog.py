"""In-memory storage of TLS secrets in the NSS key log format (draft-ietf-tls-keylogfile).

OpenSSL writes the key log to a file path.  The path used here refers to an anonymous file (memfd_create(2)), so the
secrets are never written to disk, and hosts with a read-only root file system can use it.
"""

import os
from types import TracebackType
from typing import Self


class KeyLog:
    """Context manager for a key log whose content is discarded at exit."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("keylog", os.MFD_CLOEXEC)
        #: File path to set as ``SSLContext.keylog_filename``.
        self.path = f"/proc/self/fd/{self._fd}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._fd)

    def text(self) -> str:
        """Return the content of the key log so far."""
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0).decode("ascii", errors="replace")
