"""Atomic file replacement: after a crash or during a write, readers see either the old or the new content."""

import os
from pathlib import Path


def atomic_write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the content of *path*; the new content is on disk when the function returns.

    Args:
        path: file to replace; a temporary file in the same directory is renamed to it.
        data: complete new content.
        mode: permissions with which the new file is created, reduced by the umask.

    Raises:
        OSError: the directory is not writable or the disk is full; *path* is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # may remain from an interrupted write, with other permissions
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # syncing the directory makes the rename durable
    finally:
        os.close(folder)
