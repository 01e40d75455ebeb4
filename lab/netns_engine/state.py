"""State folder of a lab without Docker: the supervisor's identity, volumes and logs.

``lab.json`` identifies the supervisor by PID, start time and boot ID, so that another process with a reused PID is not
mistaken for it.  All other resources of the lab end with that process (docs/decisions/0005-netns-supervisor.md).
"""

import contextlib
import fcntl
import json
import os
import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from netns_engine import variables
from netns_engine.compose import PROJECT, PROJECT_VARIABLE
from netns_engine.errors import EngineError

#: Version of the folder's contents and of the supervisor's messages; other versions are rejected.
VERSION = 3
#: Environment variable for the path of the folder, and the default name of the folder.
VARIABLE, FOLDER = "FIRSTBYTE_STATE", ".state"


@dataclass(frozen=True, slots=True)
class Process:
    """Process identity that remains unambiguous if the PID is reused."""

    pid: int
    #: Start time in clock ticks since boot (proc_pid_stat(5), field 22).
    started: int
    #: Boot ID, from /proc/sys/kernel/random/boot_id.
    boot: str

    @classmethod
    def of(cls, pid: int) -> "Process":
        """Return the process that currently has this PID; raise `FileNotFoundError` if there is none."""
        return cls(pid, _start_time(pid), _boot())

    @property
    def alive(self) -> bool:
        """Whether the process is still running."""
        try:
            return self.boot == _boot() and self.started == _start_time(self.pid) and not _is_zombie(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False


class StateFolder:
    """State folder of one lab, which may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @classmethod
    def find(cls, project: Path) -> "StateFolder":
        """Return the folder that ``FIRSTBYTE_STATE`` names, or the default folder for the project name.

        The default is `.state` in the project, or `.state-NAME` if another project name is set.  If firstbyte is an
        installed package rather than a checkout, the default is a folder below ``$XDG_STATE_HOME/firstbyte``.
        """
        if named := os.environ.get(VARIABLE):
            return cls(Path(named))
        values = variables.read(project)
        if named := values.get(VARIABLE):
            return cls(project / named)
        name = values.get(PROJECT_VARIABLE) or PROJECT
        if Path(sysconfig.get_path("purelib")) in project.parents:
            home = values.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
            return cls(Path(home, "firstbyte", name))
        return cls(project / (FOLDER if name == PROJECT else f"{FOLDER}-{name}"))

    @property
    def control(self) -> Path:
        """Path of the supervisor's control socket."""
        return self.path / "control"

    @property
    def volumes(self) -> Path:
        """Parent folder of the named volumes."""
        return self.path / "volumes"

    def log(self, host: str) -> Path:
        """Return the path of the log file of *host*."""
        return self.path / "logs" / f"{host}.log"

    def make(self) -> None:
        """Create the folder with mode 0700, because it contains keys."""
        try:
            for folder in (self.path, self.path / "logs", self.volumes):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(f"cannot make the state folder {self.path}: {error.strerror}") from None

    def supervisor(self) -> Process | None:
        """Return the recorded supervisor, running or not; None if none is recorded.

        Raises:
            EngineError: the folder is damaged, or belongs to another version or another user.
        """
        path = self.path / "lab.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["version"] != VERSION:
                raise EngineError(
                    f"{path}: expected state of version {VERSION}, got {document['version']!r}: "
                    "run `firstbyte down` of the firstbyte that wrote it, "
                    f"or remove {self.path} once process {document['supervisor']['pid']} is gone"
                )
            return Process(**document["supervisor"])
        except FileNotFoundError:
            return None
        except PermissionError:
            raise EngineError(f"{self.path}: the lab there belongs to another user (uid {_owner(self.path)})") from None
        except (ValueError, KeyError, TypeError):
            raise EngineError(f"{path}: expected the state of a lab, got something else: remove {self.path}") from None

    def running(self) -> Process | None:
        """Return the supervisor if it is running, else None."""
        found = self.supervisor()
        return found if found is not None and found.alive else None

    def record(self, supervisor: Process) -> None:
        """Write the supervisor's identity to the folder, with an atomic write."""
        path = self.path / "lab.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"version": VERSION, "supervisor": asdict(supervisor)}) + "\n", encoding="utf-8")
        new.replace(path)

    def clear(self, *, volumes: bool) -> None:
        """Remove the files of a lab that has ended; if *volumes*, also its volumes and logs, and the folder itself."""
        for name in ("lab.json", "lab.new", "control", "supervisor.log"):
            (self.path / name).unlink(missing_ok=True)
        if volumes:
            for name in ("logs", "volumes"):
                shutil.rmtree(self.path / name, ignore_errors=True)
            (self.path / "lock").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the folder contains other files, or does not exist
                self.path.rmdir()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock, which excludes any other `up` or `down`.

        Raises:
            EngineError: another process holds the lock.
        """
        self.make()
        with (self.path / "lock").open("w", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EngineError(f"another `firstbyte up` or `down` is at work in {self.path}") from None
            yield


def _stat(pid: int) -> list[str]:
    # The second field, the program name in parentheses, may itself contain spaces and parentheses.
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def _start_time(pid: int) -> int:
    return int(_stat(pid)[19])


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[0] in {"Z", "X"}


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _owner(path: Path) -> int | str:
    try:
        return path.stat().st_uid
    except OSError:
        return "?"
