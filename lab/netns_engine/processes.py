"""The processes of a host, found by the PID namespace that they are in: frozen, let go on, weighed."""

import contextlib
import os
import signal
from pathlib import Path

from netns_engine.errors import LabError


def of(namespace: int) -> list[int]:
    """Return the PIDs of the processes in the PID *namespace* (a descriptor).

    Raises:
        LabError: /proc is not that of our own PID namespace, so its numbers would mean other processes.
    """
    if str(Path("/proc/self").readlink()) != str(os.getpid()):
        raise LabError("this machine hides parts of /proc, and the lab can have none of its own: no pause, no memory")
    wanted, found = os.fstat(namespace).st_ino, []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            if entry.name.isdecimal() and (entry / "ns" / "pid").stat().st_ino == wanted:
                found.append(int(entry.name))
    return found


def freeze(namespace: int) -> None:
    """Stop every process, and those that one started before it stopped."""
    stopped: set[int] = set()
    while new := set(of(namespace)) - stopped:
        for pid in new:
            send(pid, signal.SIGSTOP)
        stopped |= new


def thaw(namespace: int) -> None:
    """Let every process go on."""
    for pid in of(namespace):
        send(pid, signal.SIGCONT)


def memory(namespace: int) -> int:
    """Return bytes in use: pages that several hosts have in common count once in all (PSS, proc_pid_smaps(5))."""
    return sum(map(_proportional, of(namespace)))


def send(pid: int, number: int) -> None:
    """Send a signal; nothing when the process is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
