"""The log file of one host: written by the host, truncated by the supervisor, read by the command line."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostLog:
    """A log file and its predecessor (``.log.1``)."""

    path: Path

    @contextlib.contextmanager
    def appending(self) -> Iterator[int]:
        """Give a descriptor in append mode, for the host's standard output and error."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def bound(self, size: int, files: int) -> None:
        """Truncate the file when it is larger than *size* bytes, after copying it when *files* is more than one.

        It is copied rather than renamed because the host keeps it open.
        """
        if self.path.exists() and self.path.stat().st_size > size:
            if files > 1:
                shutil.copyfile(self.path, self.path.with_suffix(".log.1"))
            os.truncate(self.path, 0)

    def read(self, offset: int = 0) -> tuple[list[str], int]:
        """Return the complete lines from *offset* and the next offset; start over when the file was truncated."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(offset if offset <= size else 0)
                begin, data = file.tell(), file.read()
        except FileNotFoundError:
            return [], 0
        whole = data[: data.rfind(b"\n") + 1]
        return whole.decode(errors="replace").splitlines(), begin + len(whole)
