"""File system of a host: the machine's files, mounted read-only, and the mounts of the compose file.

All functions change the mount namespace of the calling process.  Paths that exist in the Docker image (`/opt/venv`,
`/opt/locustfile.py`) are also created here, so that the same compose file works in both runtimes.
"""

import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from netns_engine import namespaces
from netns_engine.compose import Mount, Service

#: Devices available on every host, in addition to its ``devices:``.
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"))
#: Socket folders of name services (nscd, systemd-resolved) that would bypass /etc/resolv.conf.
NAME_SERVICES = ("/run/nscd", "/var/run/nscd", "/run/systemd/resolve")
RESOLV_CONF = "/etc/resolv.conf"


@dataclass(frozen=True, slots=True)
class Sources:
    """Folders that mount sources refer to: the project, and the parent folder of named volumes."""

    project: Path
    volumes: Path

    def of(self, mount: Mount) -> Path:
        """Return the path of *mount*'s source on this machine."""
        return self.volumes / mount.source if mount.is_volume else (self.project / mount.source).resolve()


def show_host(service: Service, sources: Sources) -> None:
    """Mount the devices, image paths and volumes of *service*, and make everything else read-only.

    Raises:
        OSError: the kernel refuses a mount, or the source of a mount does not exist.
    """
    namespaces.make_mounts_private()
    namespaces.mount_proc()
    _show_image(sources.project)
    _extend("/srv")
    for mount in service.mounts:
        if mount.target.startswith("/srv/"):
            _place(sources.of(mount), Path(mount.target))
    _show_devices(service.devices)
    _hide_name_services()
    for mount in service.mounts:
        _show(mount, sources)
    if service.read_only:
        # A bind mount of a read-only mount stays read-only, so make everything read-only last, then volumes writable
        # again.
        namespaces.freeze("/")
        for mount in service.mounts:
            if not mount.read_only:
                namespaces.thaw(mount.target)
    for path, options in service.tmpfs:
        _cover(Path(path), options, kept=(sources.project, Path(sys.prefix), Path(sys.base_prefix)))


def _cover(path: Path, options: str, kept: Iterable[Path]) -> None:
    """Mount an empty tmpfs at *path*, but keep the folders in *kept* below *path*, for example a checkout in /tmp."""
    below = sorted({Path(os.path.realpath(each)) for each in kept if path in Path(os.path.realpath(each)).parents})
    held = [(each, os.open(each, os.O_PATH | os.O_CLOEXEC)) for each in below]
    namespaces.mount("tmpfs", str(path), "tmpfs", namespaces.NOSUID | namespaces.NODEV, options)
    for each, fd in held:
        if not each.exists():  # a parent folder may already be mounted
            each.mkdir(parents=True)
            namespaces.bind(f"/proc/self/fd/{fd}", each)
        os.close(fd)


def show_network(mounts: Iterable[Mount], sources: Sources) -> None:
    """Mount a host's resolver configuration and volumes, and leave all other files unchanged."""
    namespaces.make_mounts_private()
    wanted = tuple(mounts)
    _extend("/srv")
    _hide_name_services()
    for mount in wanted:
        if mount.target.startswith("/srv/"):
            _place(sources.of(mount), Path(mount.target))
        _show(mount, sources)


def _show(mount: Mount, sources: Sources) -> None:
    # /etc/resolv.conf is often a symbolic link, so mount on its target.
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
        try:  # create a device node with mode 666, independent of the mode of the machine's own node
            os.mknod(target, stat.S_IFCHR | 0o666, os.fstat(fd).st_rdev)
            target.chmod(0o666)
        except PermissionError:  # a user namespace does not permit device nodes
            target.touch()
            namespaces.bind(f"/proc/self/fd/{fd}", target)
        os.close(fd)
    for name, to in _LINKS:
        Path("/dev", name).symlink_to(to)


def _hide_name_services() -> None:
    covered = os.path.realpath(RESOLV_CONF)
    for folder in NAME_SERVICES:
        if Path(folder).is_dir() and not Path(folder).is_symlink():
            _folder(folder)
            if Path(covered).parent == Path(folder):
                Path(covered).touch()


def _folder(path: str) -> None:
    """Mount an empty tmpfs at *path*."""
    namespaces.mount("tmpfs", path, "tmpfs", namespaces.NOSUID, "mode=755,size=1m")


def _extend(path: str) -> None:
    """Replace the folder *path* by a tmpfs with the same entries, so that mount points can be created in memory."""
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
    """Create a mount point for *source* at *target*: a folder or an empty file."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
