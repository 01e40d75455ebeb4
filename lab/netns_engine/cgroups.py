"""Limits of memory and of processes for each host (cgroups(7)), version 2 or 1, where this user may make a cgroup.

A lab whose machine allows none still runs; `firstbyte doctor` says that its limits are not enforced.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Controller:
    """One controller and the folder below which the lab may make groups."""

    name: str
    #: Where a lab's own folder goes.
    parent: Path
    #: File with the limit.
    limit: str


def controllers(root: Path = ROOT) -> tuple[Controller, ...]:
    """Return the controllers that this user may use: ``memory`` and ``pids``, either, or none."""
    unified = root / "cgroup.subtree_control"
    if unified.is_file():
        parent, enabled = root, unified.read_text(encoding="ascii").split()
        found = [
            Controller(name, parent, limit)
            for name, limit in (("memory", "memory.max"), ("pids", "pids.max"))
            if name in enabled
        ]
    else:
        found = [
            Controller(name, root / name, limit)
            for name, limit in (("memory", "memory.limit_in_bytes"), ("pids", "pids.max"))
            if (root / name / "cgroup.procs").is_file()
        ]
    return tuple(each for each in found if _writable(each.parent))


class Limits:
    """The cgroups of one lab."""

    def __init__(self, state: Path, available: tuple[Controller, ...]) -> None:
        self._name = f"firstbyte-{hashlib.sha256(str(state).encode()).hexdigest()[:10]}"
        self._available = available

    def apply(self, host: str, pid: int, *, memory: int | None, pids: int | None) -> None:
        """Limit the process *pid*, and whatever it starts, to *memory* bytes and *pids* processes."""
        for each in self._available:
            limit = memory if each.name == "memory" else pids
            if limit is None:
                continue
            group = each.parent / self._name / host
            try:
                self._enable(each, group.parent)
                group.mkdir(exist_ok=True)
                (group / each.limit).write_text(str(limit), encoding="ascii")
                (group / "cgroup.procs").write_text(str(pid), encoding="ascii")
            except OSError as error:
                raise OSError(error.errno, f"cgroup {group}: {error.strerror}") from None

    def remove(self) -> None:
        """Remove the groups of this lab; those that still hold a process stay for the next time."""
        for each in self._available:
            ours = each.parent / self._name
            for group in (*(p for p in ours.glob("*") if p.is_dir()), ours):
                with contextlib.suppress(OSError):
                    group.rmdir()

    @staticmethod
    def _enable(controller: Controller, ours: Path) -> None:
        """In version 2 a folder hands its controllers on only when told to."""
        ours.mkdir(exist_ok=True)
        handed_on = ours / "cgroup.subtree_control"
        if handed_on.is_file() and controller.name not in handed_on.read_text(encoding="ascii").split():
            handed_on.write_text(f"+{controller.name}", encoding="ascii")


def _writable(folder: Path) -> bool:
    probe = folder / "firstbyte-probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True
