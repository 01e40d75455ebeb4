"""Log file of one host: written by the host, truncated by the supervisor, read by the command line."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostLog:
    """A log file and its previous generation (``.log.1``)."""

    path: Path

    @contextlib.contextmanager
    def appending(self) -> Iterator[int]:
        """Yield a descriptor in append mode, for the host's standard output and error."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def bound(self, size: int, files: int) -> None:
        """Truncate the log file if it is larger than *size* bytes.

        If *files* is greater than one, copy the log file to ``.log.1`` first.  Renaming would not work, because the
        host keeps the file open.
        """
        if self.path.exists() and self.path.stat().st_size > size:
            if files > 1:
                shutil.copyfile(self.path, self.path.with_suffix(".log.1"))
            os.truncate(self.path, 0)

    def read(self, offset: int = 0) -> tuple[list[str], int]:
        """Return the complete lines after *offset*, and the next offset; restart at 0 if the file was truncated."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(offset if offset <= size else 0)
                begin, data = file.tell(), file.read()
        except FileNotFoundError:
            return [], 0
        whole = data[: data.rfind(b"\n") + 1]
        return whole.decode(errors="replace").splitlines(), begin + len(whole)
