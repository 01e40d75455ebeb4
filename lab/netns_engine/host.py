"""Starts a host: the first process of a PID namespace, with its own network, mounts and host name.

`spawn` starts a host; `spawn_in` starts another program on it.  Both fork; between `fork` and `exec` the child sets up
its namespaces and reports errors over a socket.  When the first process ends, the kernel kills all other processes of
the host and frees its network, mounts and devices.
"""

import contextlib
import importlib
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import NetlinkError

from netns_engine import namespaces, wires
from netns_engine.compose import Service
from netns_engine.errors import LabDownError
from netns_engine.filesystem import Sources, show_host

#: uid and gid of services, the same as in the Docker image.
HOST_UID = 1000
_NOT_STARTED = 125


class SpawnError(LabDownError):
    """A host or program could not be started on this machine; the message names the step that failed."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running host: the PID of its first process, and descriptors of its namespaces."""

    pid: int
    net: int
    mounts: int
    pids: int
    name: int

    def close(self) -> None:
        """Close the namespace descriptors, because an open descriptor keeps the host's network alive."""
        for fd in (self.net, self.mounts, self.pids, self.name):
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Settings that are the same for all hosts of a lab."""

    sources: Sources
    #: Descriptor of the supervisor's PID namespace.
    pids: int
    #: uid that services run as.
    uid: int


def spawn(
    service: Service,
    around: Surroundings,
    interface: ipaddress.IPv4Interface | None,
    plug: Callable[[int, int], None],
    *,
    arguments: Sequence[str] | None = None,
    streams: Sequence[int],
) -> Running:
    """Start a host.

    Args:
        service: the service that the host runs.
        around: settings shared by all hosts of the lab.
        interface: the host's address; None for loopback only.
        plug: called with the host's PID and a descriptor of its network namespace as soon as both exist; connects the
            host to the bridge and limits its resources.
        arguments: replacement for the service's `command`.
        streams: descriptors for standard input, output and error.

    Raises:
        SpawnError: the kernel refused one of the steps.
    """
    argv = service.argv if arguments is None else (*service.argv[: service.entrypoint], *arguments)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def child() -> None:
        os.setsid()
        namespaces.unshare(namespaces.NEWNET | namespaces.NEWNS | namespaces.NEWUTS | namespaces.NEWIPC)
        socket.sethostname(service.name)
        wires.set_sysctls(service.sysctls)
        socket.send_fds(theirs, [b"made"], [namespaces.own(kind) for kind in ("net", "mnt", "pid", "uts")])
        theirs.recv(1)
        wires.configure(interface)
        wires.set_sysctls(service.sysctls, known=interface is not None)
        show_host(service, around.sources)
        os.chdir("/")
        environment = {"HOSTNAME": service.name, "HOME": "/", **dict(service.environment), "HOST_UID": str(around.uid)}
        user = around.uid if service.user is not None else None
        _become(privileges(user, service.capabilities, bool(os.geteuid() == around.uid)), argv, environment, streams)

    pid = _fork(child, theirs, around.pids, around.pids)
    try:
        namespace_fds = _until_made(ours, pid)
        running = Running(pid, *namespace_fds)
        try:
            plug(pid, running.net)
            ours.send(b"x")
            _until_running(ours, pid)
        except BaseException as error:
            _end(pid)
            running.close()
            if isinstance(error, (OSError, NetlinkError)):
                raise SpawnError(f"cannot connect {service.name}: {error}") from None
            raise
    finally:
        ours.close()
    return running


def spawn_in(
    running: Running,
    around: Surroundings,
    argv: Sequence[str],
    environment: Mapping[str, str],
    streams: Sequence[int],
) -> int:
    """Run another program on a host, as the host's user and without capabilities; return its PID."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def child() -> None:
        os.setsid()
        namespaces.enter(running.net, namespaces.NEWNET)
        namespaces.enter(running.name, namespaces.NEWUTS)
        namespaces.enter(running.mounts, namespaces.NEWNS)
        os.chdir("/")
        _become(privileges(around.uid, (), os.geteuid() == around.uid), argv, environment, streams)

    pid = _fork(child, theirs, running.pids, around.pids)
    try:
        _until_running(ours, pid)
    finally:
        ours.close()
    return pid


def probe_in(running: Running, around: Surroundings, module: str) -> int:
    """Run *module*'s `main` in a host's network as the host's user, in a fork of this process; return the PID.

    A fork saves the 20 ms of CPU time per health check that ``python -m MODULE`` needs, mostly for interpreter
    start-up.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def child() -> None:
        namespaces.enter(running.net, namespaces.NEWNET)
        if os.geteuid() != around.uid:
            os.setgroups([])
            os.setgid(around.uid)
            os.setuid(around.uid)
        with Path(os.devnull).open("r+b", buffering=0) as nothing:
            for number in range(3):
                os.dup2(nothing.fileno(), number)
        os._exit(int(importlib.import_module(module).main()))

    pid = _fork(child, theirs, running.pids, around.pids)
    ours.close()
    return pid


def privileges(user: int | None, capabilities: Iterable[str], already: bool) -> list[str]:
    """Return a `setpriv` command prefix that drops all but *capabilities* and switches to *user*.

    If *already* is true, the process already runs as *user*, so the prefix does not switch.
    """
    words = ["setpriv"]
    if user is not None and not already:
        words += [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    kept = "".join(f",+{each}" for each in capabilities)
    return [*words, "--inh-caps=-all", "--ambient-caps=-all", f"--bounding-set=-all{kept}", "--no-new-privs"]


def user_of_services(project: Path) -> int:
    """Return the uid for services: `HOST_UID`, or this process's uid if `HOST_UID` cannot read interpreter or project.

    An interpreter below a private home folder is accessible to its owner only, and an unprivileged user namespace has
    only one uid.
    """
    needed = (project, sys.prefix, sys.base_prefix, os.path.realpath(sys.executable))
    able = os.geteuid() == 0 and is_mapped(HOST_UID, Path("/proc/self/uid_map").read_text(encoding="ascii"))
    return HOST_UID if able and all(open_to_all(Path(each)) for each in needed) else os.geteuid()


def is_mapped(uid: int, uid_map: str) -> bool:
    """Return whether *uid_map* maps *uid* (user_namespaces(7)).

    Each line has three numbers: first uid inside the namespace, first uid outside, count.
    """
    ranges = [tuple(map(int, line.split())) for line in uid_map.splitlines()]
    return any(first <= uid < first + count for first, _, count in ranges)


def open_to_all(path: Path) -> bool:
    """Return whether the permissions of *path* and its parent folders let every user read it."""
    try:
        return all(p.stat().st_mode & 0o001 for p in path.resolve().parents) and bool(path.stat().st_mode & 0o004)
    except OSError:
        return False


def exit_code(status: int) -> int:
    """Convert a wait status to a shell exit code: the exit code itself, or 128 + the signal number."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _fork(child: Callable[[], None], report: socket.socket, pids: int, home: int) -> int:
    """Fork; run *child* in PID namespace *pids*, or in a new one if *pids* is the supervisor's own (*home*)."""
    if pids == home:
        namespaces.unshare(namespaces.NEWPID)
    else:
        namespaces.enter(pids, namespaces.NEWPID)
    try:
        try:
            pid = os.fork()
        except OSError as error:  # ENOMEM: the namespace's first process has ended, so no process can join it
            raise SpawnError(f"the host has ended: {error.strerror}") from None
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
                    signal.signal(signum, signal.SIG_DFL)
                child()
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                report.send(f"error: {where}{error.strerror or error}".encode())
            except BaseException as error:  # an exception must not let the fork continue as a second supervisor
                report.send(f"error: {type(error).__name__}: {error}".encode())
            finally:
                os._exit(_NOT_STARTED)
    finally:
        namespaces.enter(home, namespaces.NEWPID)
        report.close()
    return pid


def _become(first: Sequence[str], argv: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> None:
    """Replace this process by the program *argv*, started through the command prefix *first*; does not return."""
    command = [*first, *argv]
    copies = [os.dup(fd) for fd in streams]  # duplicate first, because an original may be descriptor 0, 1 or 2
    for number, fd in enumerate(copies):
        os.dup2(fd, number, inheritable=True)
    os.execvpe(command[0], command, dict(environment))  # noqa: S606 - no shell is involved


def _until_made(ours: socket.socket, pid: int) -> list[int]:
    data, fds, _, _ = socket.recv_fds(ours, 4096, 4, socket.MSG_CMSG_CLOEXEC)
    if data != b"made":
        _reap(pid)
        raise SpawnError(data.decode().removeprefix("error: ") or "the process ended during set-up")
    return fds


def _until_running(ours: socket.socket, pid: int) -> None:
    """Wait until the child calls `exec`, which closes its end of the socket; raise `SpawnError` if it fails."""
    if problem := ours.recv(4096):
        _reap(pid)
        raise SpawnError(problem.decode().removeprefix("error: "))


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _reap(pid)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
