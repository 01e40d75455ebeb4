"""Atomic writes: a reader, or a crash, finds the old content or the new, never a part of it."""

import os
from pathlib import Path


def atomic_write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the content of *path*; on return the new content is on disk.

    Args:
        path: replaced by renaming a temporary file in the same folder.
        data: the whole new content.
        mode: permissions of the new file from its creation on, less the umask.

    Raises:
        OSError: the folder cannot be written, or the disk is full; *path* is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
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
        os.fsync(folder)  # the rename itself is on disk only after this
    finally:
        os.close(folder)
