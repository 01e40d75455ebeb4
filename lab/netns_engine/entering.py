"""How a program of the caller becomes one of a host: between `fork` and `exec`, in the process that is to be it."""

import os
import signal

from netns_engine import namespaces


def enter_host(network: int, name: int, user: int) -> None:
    """Leave our namespaces for a host's; the mounts become a copy of ours."""
    if os.geteuid() != 0:
        namespaces.enter(user, namespaces.NEWUSER)
    namespaces.enter(network, namespaces.NEWNET)
    namespaces.enter(name, namespaces.NEWUTS)
    namespaces.unshare(namespaces.NEWNS)


def move_below(processes: int) -> None:
    """Go on as a child in the PID namespace *processes*; what is left of us waits for it and hands its exit code on.

    A process never changes its own PID namespace, only that of its children; being in the host's is what ends a
    forgotten program with the host, whose network it would keep otherwise.
    """
    namespaces.enter(processes, namespaces.NEWPID)
    pid = os.fork()
    if pid == 0:
        namespaces.mount_proc()
        return
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the terminal sends it to both of us; the program decides
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    os.closerange(3, 256)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(code if code >= 0 else 128 - code)
