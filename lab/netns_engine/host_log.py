"""The log of one host: written by the host itself, bounded by the supervisor, read by the command line."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostLog:
    """One file, and beside it the one that was full before."""

    path: Path

    @contextlib.contextmanager
    def appending(self) -> Iterator[int]:
        """Give a descriptor that always writes at the end, for the host's standard output and error."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def bound(self, size: int, files: int) -> None:
        """Empty the file when it is larger than *size* bytes, and keep what it held if *files* are more than one.

        It is not moved: its writer keeps it open.
        """
        if self.path.exists() and self.path.stat().st_size > size:
            if files > 1:
                shutil.copyfile(self.path, self.path.with_suffix(".log.1"))
            os.truncate(self.path, 0)

    def read(self, offset: int = 0) -> tuple[list[str], int]:
        """Return the whole lines after *offset*, and where the next begin; from the top when the file was emptied."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(offset if offset <= size else 0)
                begin, data = file.tell(), file.read()
        except FileNotFoundError:
            return [], 0
        whole = data[: data.rfind(b"\n") + 1]
        return whole.decode(errors="replace").splitlines(), begin + len(whole)
