"""Checks before start-up that this machine and user can run a lab in network namespaces."""

import os
import shutil
from pathlib import Path

from netns_engine import compose, namespaces
from netns_engine.errors import EngineError
from netns_engine.wires import set_sysctls

TUN = Path("/dev/net/tun")


def require_machine(file: compose.Compose) -> None:
    """Raise `EngineError` ("problem: remedy") if this machine or user cannot run a lab."""
    if any(str(TUN) in service.devices for service in file.services):
        if not TUN.is_char_device():
            raise EngineError(f"expected the device {TUN}, got none: load the kernel module 'tun' (`modprobe tun`)")
        if not os.access(TUN, os.R_OK | os.W_OK):
            mode = TUN.stat().st_mode & 0o777
            raise EngineError(
                f"expected to read and write {TUN} as uid {os.getuid()}, got mode {mode:o}: run as root, or "
                f"`sudo chmod 666 {TUN}`"
            )
    for program in ("setpriv", "ip"):
        if shutil.which(program) is None:
            raise EngineError(f"expected the program {program!r} (util-linux, iproute2), found none: install it")
    if problem := namespace_problem():
        raise EngineError(problem)


def namespace_problem() -> str:
    """Return why this user cannot create a host's namespaces or forward packets in them, or "".

    The check creates the namespaces in a child process.
    """
    report, written = os.pipe()
    pid = os.fork()
    if pid == 0:
        _try_namespaces(written)
    os.close(written)
    with os.fdopen(report, encoding="utf-8") as file:
        problem = file.read()
    os.waitpid(pid, 0)
    return problem


def _try_namespaces(report: int) -> None:
    """Create the namespaces in this process, write any error to the descriptor *report*, and exit."""
    trying = "not root, and no user namespaces" if os.geteuid() != 0 else "no namespaces"
    try:
        if os.geteuid() != 0:
            namespaces.become_root_of_user_namespace()
        namespaces.unshare(namespaces.NEWNET | namespaces.NEWNS | namespaces.NEWPID)
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
            return
        trying = "hosts cannot forward packets"
        namespaces.make_mounts_private()
        namespaces.mount_proc()
        set_sysctls((("net.ipv4.ip_forward", "1"),))
    except OSError as error:
        os.write(report, f"{trying}: {error.strerror}: run as root outside a container, or use Docker".encode())
    finally:
        os._exit(0)
