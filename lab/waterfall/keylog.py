"""The secrets of TLS connections in the NSS key log format (draft-ietf-tls-keylogfile), in memory only.

OpenSSL writes them to a path.  This path leads to an anonymous file (memfd_create(2)), so that no secret reaches a disk and
hosts with a read-only root can write it.
"""

import os
from types import TracebackType
from typing import Self


class KeyLog:
    """A key log that exists until it is closed."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("keylog", os.MFD_CLOEXEC)
        #: For ``SSLContext.keylog_filename``.
        self.path = f"/proc/self/fd/{self._fd}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._fd)

    def text(self) -> str:
        """Return the log so far."""
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0).decode("ascii", errors="replace")
