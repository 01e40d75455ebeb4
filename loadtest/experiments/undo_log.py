"""The undo log: a file that lists how to reverse each injection, written to disk before the injection is made.

If a run is killed, its log remains on disk, and the next run reverses the listed injections before it starts.  A lock
on the results folder allows one experiment at a time; the kernel releases the lock when the process dies.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hostfiles.atomic import atomic_write

LOCK, LOG = ".experiment.lock", ".undo.json"


class BusyError(Exception):
    """Another experiment is running in this lab."""


@dataclass(frozen=True, slots=True)
class Undo:
    """An admin request that reverses one injection, and a short description of the injection."""

    text: str
    host: str
    method: str
    path: str
    body: Any = None


class UndoLog:
    """The injections of one lab that have not been undone yet, oldest first, in memory and on disk."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        self.undos: list[Undo] = []

    def __len__(self) -> int:
        return len(self.undos)

    def load(self) -> None:
        """Load the log that a killed run left on disk; an unreadable log counts as empty."""
        try:
            self.undos = [Undo(**each) for each in json.loads(self.path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            self.undos = []

    def add(self, undo: Undo) -> None:
        """Record on disk how to reverse an injection, before it is made.

        Raises:
            OSError: the log could not be written (for example, disk full).  The caller must not make the injection.
        """
        self._save([*self.undos, undo])
        self.undos.append(undo)

    def remove(self, undo: Undo) -> None:
        """Remove an injection that has been undone from the log."""
        self.undos.remove(undo)
        with contextlib.suppress(OSError):  # a stale entry is harmless: undoing an injection twice has no effect
            self._save(self.undos)

    def _save(self, undos: list[Undo]) -> None:
        if not undos:
            self.path.unlink(missing_ok=True)
            return
        atomic_write(self.path, json.dumps([asdict(each) for each in undos]).encode())


@contextmanager
def exclusive(folder: Path, name: str) -> Iterator[None]:
    """Lock the lab for one experiment while the ``with`` block runs.

    Args:
        folder: results folder, shared by all users of this lab; holds the lock file.
        name: name of the experiment, shown in the `BusyError` if another experiment is started.

    Raises:
        BusyError: another experiment holds the lock.
        OSError: the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise BusyError(f"{holder or 'an experiment'} is running in this lab: wait until it has ended") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, name.encode(), 0)
        yield
    finally:
        os.close(descriptor)
