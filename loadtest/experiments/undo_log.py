"""The undo log: how to reverse each injection, written to disk before the injection is made.

A run that is killed leaves the log behind, and the next run works it off before it does anything else.  A lock on the
results folder admits one experiment at a time; the kernel releases it when the process dies.
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
    """The admin request that reverses an injection, and a description of that injection."""

    text: str
    host: str
    method: str
    path: str
    body: Any = None


class UndoLog:
    """Injections that have not been undone yet, oldest first."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOG
        self.undos: list[Undo] = []

    def __len__(self) -> int:
        return len(self.undos)

    def load(self) -> None:
        """Take over the log of a run that was killed; an unreadable log counts as empty."""
        try:
            self.undos = [Undo(**each) for each in json.loads(self.path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            self.undos = []

    def add(self, undo: Undo) -> None:
        """Write down how to reverse an injection that is about to be made.

        Raises:
            OSError: the log could not be written (disk full): do not make the injection.
        """
        self._save([*self.undos, undo])
        self.undos.append(undo)

    def remove(self, undo: Undo) -> None:
        """Drop an injection that has been undone."""
        self.undos.remove(undo)
        with contextlib.suppress(OSError):  # a stale entry is harmless: undoing twice changes nothing
            self._save(self.undos)

    def _save(self, undos: list[Undo]) -> None:
        if not undos:
            self.path.unlink(missing_ok=True)
            return
        atomic_write(self.path, json.dumps([asdict(each) for each in undos]).encode())


@contextmanager
def exclusive(folder: Path, name: str) -> Iterator[None]:
    """Hold the lab for one experiment.

    Args:
        folder: the results folder, shared by everyone who may use this lab.
        name: of the experiment; shown to anyone who is refused meanwhile.

    Raises:
        BusyError: another experiment holds the lab.
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
