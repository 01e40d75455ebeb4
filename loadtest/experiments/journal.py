"""The undo list of a run, on disk before anything is injected, so that even a killed run is cleaned up after.

One experiment at a time: a lock on the results folder, which the kernel lets go of when the process dies.  Whoever holds
it next finds the list that was left behind and works it off before it does anything of its own.
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

LOCK, LIST = ".experiment.lock", ".undo.json"


class BusyError(Exception):
    """Another experiment is under way in this lab."""


@dataclass(frozen=True, slots=True)
class Undo:
    """One admin request that takes an injection back, and what that injection was."""

    text: str
    host: str
    method: str
    path: str
    body: Any = None


class Journal:
    """What has to be undone, the last first."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LIST
        self.undos: list[Undo] = []

    def __len__(self) -> int:
        return len(self.undos)

    def load(self) -> None:
        """Take over what a run before us left behind; a list that can not be read is none."""
        try:
            self.undos = [Undo(**each) for each in json.loads(self.path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            self.undos = []

    def add(self, undo: Undo) -> None:
        """Write down how to take an injection back; call before it is made.

        Raises:
            OSError: the disk is full: then it must not be made.
        """
        self._save([*self.undos, undo])
        self.undos.append(undo)

    def done(self, undo: Undo) -> None:
        """It was taken back."""
        self.undos.remove(undo)
        with contextlib.suppress(OSError):  # a list that is too long does no harm: what it says is done once more
            self._save(self.undos)

    def _save(self, undos: list[Undo]) -> None:
        if not undos:
            self.path.unlink(missing_ok=True)
            return
        atomic_write(self.path, json.dumps([asdict(each) for each in undos]).encode())


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Hold the lab for one experiment.

    Args:
        folder: of the results, the same for everybody who may use this lab.
        name: of the experiment, told to whoever comes meanwhile.

    Raises:
        BusyError: another one holds it.
        OSError: the folder can not be written.
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
