"""Pauses, resumes and measures the processes of a host, which are the processes in its PID namespace."""

import contextlib
import os
import signal
from pathlib import Path

from netns_engine.errors import LabError


def of(namespace: int) -> list[int]:
    """Return the PIDs of all processes in a PID namespace, given as a descriptor.

    Raises:
        LabError: /proc belongs to another PID namespace than this process, so its PIDs do not apply here.
    """
    if str(Path("/proc/self").readlink()) != str(os.getpid()):
        raise LabError(
            "this machine hides parts of /proc, so the lab cannot mount its own: no pause, no memory figures"
        )
    wanted, found = os.fstat(namespace).st_ino, []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # the process ended in the meantime
            if entry.name.isdecimal() and (entry / "ns" / "pid").stat().st_ino == wanted:
                found.append(int(entry.name))
    return found


def freeze(namespace: int) -> None:
    """Stop every process in the PID namespace, including processes that start in the meantime."""
    stopped: set[int] = set()
    while new := set(of(namespace)) - stopped:
        for pid in new:
            send(pid, signal.SIGSTOP)
        stopped |= new


def thaw(namespace: int) -> None:
    """Resume every process in the PID namespace."""
    for pid in of(namespace):
        send(pid, signal.SIGCONT)


def memory(namespace: int) -> int:
    """Return memory use in bytes as proportional set size (proc_pid_smaps(5)).

    A page that n processes share counts 1/n for each.
    """
    return sum(map(_proportional, of(namespace)))


def send(pid: int, number: int) -> None:
    """Send the signal *number* to the process *pid*; do nothing if the process has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _proportional(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
