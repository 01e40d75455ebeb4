"""Memory and process limits per host, through cgroups (cgroups(7), version 2 or 1).

If this user may not create cgroups, the lab runs without limits, and `firstbyte doctor` reports that.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Controller:
    """A cgroup controller and the folder in which the lab may create groups."""

    name: str
    #: Folder in which the lab creates its own cgroup folder.
    parent: Path
    #: Name of the controller file that contains the limit.
    limit: str


def controllers(root: Path = ROOT) -> tuple[Controller, ...]:
    """Return the cgroup controllers, out of ``memory`` and ``pids``, that this user may use."""
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
        """Limit the process *pid* and its descendants to *memory* bytes and *pids* processes; None means no limit."""
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
        """Remove the lab's cgroups, except those that still contain a process."""
        for each in self._available:
            ours = each.parent / self._name
            for group in (*(p for p in ours.glob("*") if p.is_dir()), ours):
                with contextlib.suppress(OSError):
                    group.rmdir()

    @staticmethod
    def _enable(controller: Controller, ours: Path) -> None:
        """Enable the controller for child groups of the folder *ours*, which cgroup version 2 requires."""
        ours.mkdir(exist_ok=True)
        enabled = ours / "cgroup.subtree_control"
        if enabled.is_file() and controller.name not in enabled.read_text(encoding="ascii").split():
            enabled.write_text(f"+{controller.name}", encoding="ascii")


def _writable(folder: Path) -> bool:
    probe = folder / "firstbyte-probe"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True
