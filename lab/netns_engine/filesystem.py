"""What a host sees of the machine's files: all of them, read-only, and what the compose file mounts.

Works in the mount namespace of the process that calls it.  What the image of the Docker runtime holds at fixed paths
(`/opt/venv`, `/opt/locustfile.py`) is shown at the same paths, so that one compose file serves both.
"""

import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from netns_engine import namespaces
from netns_engine.compose import Mount, Service

#: What a host has below /dev beside its ``devices:``.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"))
#: Where programs find a name service that answers around /etc/resolv.conf (nscd, systemd-resolved).
NAME_SERVICES = ("/run/nscd", "/var/run/nscd", "/run/systemd/resolve")
RESOLV_CONF = "/etc/resolv.conf"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the things are that hosts see."""

    project: Path
    volumes: Path

    def of(self, mount: Mount) -> Path:
        """Return the folder or file behind a mount."""
        return self.volumes / mount.source if mount.is_volume else (self.project / mount.source).resolve()


def show_host(service: Service, sources: Sources) -> None:
    """Make this mount namespace the one of *service*: devices, image paths, volumes; the rest read-only.

    Raises:
        OSError: the machine forbids a mount, or something to mount is missing.
    """
    namespaces.keep_mounts_private()
    namespaces.mount_proc()
    _show_image(sources.project)
    _extend("/srv")
    for mount in service.mounts:
        if mount.target.startswith("/srv/"):
            _place(sources.of(mount), Path(mount.target))
    _show_devices(service.devices)
    _silence_name_services()
    for mount in service.mounts:
        _show(mount, sources)
    if service.read_only:
        # What is mounted from a read-only mount is read-only for good: first everything, then the exceptions.
        namespaces.freeze("/")
        for mount in service.mounts:
            if not mount.read_only:
                namespaces.thaw(mount.target)
    for path, options in service.tmpfs:
        _cover(Path(path), options, kept=(sources.project, Path(sys.prefix), Path(sys.base_prefix)))


def _cover(path: Path, options: str, kept: Iterable[Path]) -> None:
    """Mount an empty folder in memory at *path*; what of *kept* lies below it, a clone in /tmp for one, is still there."""
    below = sorted({Path(os.path.realpath(each)) for each in kept if path in Path(os.path.realpath(each)).parents})
    held = [(each, os.open(each, os.O_PATH | os.O_CLOEXEC)) for each in below]
    namespaces.mount("tmpfs", str(path), "tmpfs", namespaces.NOSUID | namespaces.NODEV, options)
    for each, fd in held:
        if not each.exists():  # or one that stands before it holds it
            each.mkdir(parents=True)
            namespaces.bind(f"/proc/self/fd/{fd}", each)
        os.close(fd)


def show_network(mounts: Iterable[Mount], sources: Sources) -> None:
    """Let a program of the caller see the host's resolver and volumes, and else everything as it is."""
    namespaces.keep_mounts_private()
    wanted = tuple(mounts)
    _extend("/srv")
    _silence_name_services()
    for mount in wanted:
        if mount.target.startswith("/srv/"):
            _place(sources.of(mount), Path(mount.target))
        _show(mount, sources)


def _show(mount: Mount, sources: Sources) -> None:
    # /etc/resolv.conf is often a link; the link stays, what it leads to is covered.
    target = os.path.realpath(mount.target) if mount.target == RESOLV_CONF else mount.target
    namespaces.bind(sources.of(mount), target, read_only=mount.read_only)


def _show_image(project: Path) -> None:
    _extend("/opt")
    for source, target in (
        (Path(os.path.realpath(sys.prefix)), Path("/opt/venv")),
        (project / "loadtest" / "locustfile.py", Path("/opt/locustfile.py")),
    ):
        _place(source, target)
        namespaces.bind(source, target)


def _show_devices(wanted: tuple[str, ...]) -> None:
    held = {name: os.open(name, os.O_PATH | os.O_CLOEXEC) for name in (*(f"/dev/{each}" for each in DEVICES), *wanted)}
    _folder("/dev")
    for name, fd in held.items():
        target = Path(name)
        target.parent.mkdir(exist_ok=True)
        try:  # a node of our own: services may open it whatever its mode outside, which nothing here changes
            os.mknod(target, stat.S_IFCHR | 0o666, os.fstat(fd).st_rdev)
            target.chmod(0o666)
        except PermissionError:  # in a user namespace nobody makes devices
            target.touch()
            namespaces.bind(f"/proc/self/fd/{fd}", target)
        os.close(fd)
    for name, to in _LINKS:
        Path("/dev", name).symlink_to(to)


def _silence_name_services() -> None:
    covered = os.path.realpath(RESOLV_CONF)
    for folder in NAME_SERVICES:
        if Path(folder).is_dir() and not Path(folder).is_symlink():
            _folder(folder)
            if Path(covered).parent == Path(folder):
                Path(covered).touch()


def _folder(path: str) -> None:
    """Cover *path* with an empty folder in memory."""
    namespaces.mount("tmpfs", path, "tmpfs", namespaces.NOSUID, "mode=755,size=1m")


def _extend(path: str) -> None:
    """Let things be added to the folder *path*, on the machine's disk or not: the same entries, in a folder in memory.

    An interpreter or the checkout may well be among them.
    """
    entries = list(os.scandir(path))
    held = {each.name: os.open(each.path, os.O_PATH | os.O_CLOEXEC) for each in entries if not each.is_symlink()}
    links = {each.name: Path(each.path).readlink() for each in entries if each.is_symlink()}
    _folder(path)
    for name, fd in held.items():
        source, target = Path(f"/proc/self/fd/{fd}"), Path(path, name)
        _place(source, target)
        namespaces.bind(source, target)
        os.close(fd)
    for name, to in links.items():
        Path(path, name).symlink_to(to)


def _place(source: Path, target: Path) -> None:
    """Make the point that *source* is mounted on."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
