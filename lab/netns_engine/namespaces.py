"""System calls for namespaces and mounts (namespaces(7), mount(2)); Python 3.11 has no `os.unshare`.

Namespaces are identified by file descriptors, not by paths below /run/netns.  A namespace therefore disappears with its
last process, and unprivileged users can create namespaces.
"""

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

#: Namespace flags for unshare(2) and setns(2), from linux/sched.h.
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
#: Mount flags for mount(2), from linux/mount.h.
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
#: Constants for mount_setattr(2), Linux 5.12.  The call number is the same on every architecture; struct mount_attr has
#: four 64-bit fields.
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _ATTR_RDONLY = 442, -100, 0x8000, 1
#: prctl(2) option for the parent-death signal, from linux/prctl.h.
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(kinds: int) -> None:
    """Move this process to new namespaces of the given *kinds*, a combination of flags such as `NEWNET`."""
    _check(_libc.unshare(kinds), "unshare")


def enter(namespace: int, kind: int) -> None:
    """Move this thread to the namespace that the descriptor *namespace* refers to."""
    _check(_libc.setns(namespace, kind), "setns")


def own(kind: str) -> int:
    """Return a descriptor of this process's own namespace of *kind*: ``net``, ``mnt``, ``pid``, ``uts`` or ``user``."""
    return os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def inside(namespace: int, home: int) -> Iterator[None]:
    """Run the block in the network namespace *namespace*, then return to *home*.

    Sockets created in the block stay in *namespace*.
    """
    enter(namespace, NEWNET)
    try:
        yield
    finally:
        enter(home, NEWNET)


def become_root_of_user_namespace() -> None:
    """Become root of a new user namespace, with all capabilities inside and none outside (user_namespaces(7)).

    Raises:
        OSError: the machine does not allow user namespaces for this user.
    """
    uid, gid = os.getuid(), os.getgid()
    unshare(NEWUSER)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1", encoding="ascii")


def mount(source: str, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount *source* at *target*, or change the existing mount there (mount(2))."""
    answer = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode() if data else None
    )
    _check(answer, f"mount {source or kind} on {target}")


def bind(source: str | Path, target: str | Path, *, read_only: bool = False) -> None:
    """Bind-mount the file or folder *source* at *target*."""
    mount(str(source), target, flags=BIND | RECURSIVE)
    if read_only:
        freeze(target)


def freeze(target: str | Path) -> None:
    """Make all mounts at and below *target* read-only."""
    _set_attributes(target, _AT_RECURSIVE, _ATTR_RDONLY, 0)


def thaw(target: str | Path) -> None:
    """Make the mount at *target* writable again."""
    _set_attributes(target, 0, 0, _ATTR_RDONLY)


def _set_attributes(target: str | Path, flags: int, on: int, off: int) -> None:
    """Change mount attributes with mount_setattr(2), which keeps other flags and can include mounts below *target*."""
    attributes = ctypes.create_string_buffer(struct.pack("QQQQ", on, off, 0, 0))
    answer = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), flags, attributes, ctypes.c_size_t(32))
    _check(answer, f"make {target} {'read-only' if on else 'writable'}")


def make_mounts_private() -> None:
    """Prevent mount changes in this mount namespace from propagating to others."""
    mount("", "/", flags=PRIVATE | RECURSIVE)


def mount_proc() -> bool:
    """Mount /proc for this PID namespace; return False if the kernel refuses because parts of /proc are hidden."""
    try:
        mount("proc", "/proc", "proc", NOSUID | NODEV | NOEXEC)
    except PermissionError:
        return False
    return True


def die_with_parent(signum: int) -> None:
    """Make the kernel send the signal *signum* to this process when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0), "prctl")


def _check(answer: int, what: str) -> None:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number) if number else errno.errorcode.get(number, '?')}")
