"""Joins a host's namespaces in a child process, between `fork` and `exec` (for `firstbyte exec`)."""

import os
import signal

from netns_engine import namespaces


def enter_host(network: int, name: int, user: int) -> None:
    """Join the host's user, network and UTS (host name) namespaces, with a private copy of the current mounts."""
    if os.geteuid() != 0:
        namespaces.enter(user, namespaces.NEWUSER)
    namespaces.enter(network, namespaces.NEWNET)
    namespaces.enter(name, namespaces.NEWUTS)
    namespaces.unshare(namespaces.NEWNS)


def move_below(processes: int) -> None:
    """Fork, continue in the child inside the PID namespace *processes*, and exit with the child's exit code.

    setns(2) only changes the PID namespace of future children.  The program must be in the host's PID namespace so that
    it ends with the host; otherwise it would keep the host's network alive.
    """
    namespaces.enter(processes, namespaces.NEWPID)
    pid = os.fork()
    if pid == 0:
        namespaces.mount_proc()
        return
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the terminal signals both processes; only the program should react
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    os.closerange(3, 256)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os._exit(code if code >= 0 else 128 - code)
