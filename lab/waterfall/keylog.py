"""The secrets of TLS connections in the NSS key log format, in memory only (draft-ietf-tls-keylogfile).

OpenSSL writes them to a path; this one names an anonymous file (memfd_create(2)), so that no secret touches a disk and
a host with a read-only root can keep a log.
"""

import os
from types import TracebackType
from typing import Self


class KeyLog:
    """Takes secrets until closed."""

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
