"""A file that is written whole or not at all, whatever happens meanwhile."""

import os
from pathlib import Path


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write *data* so that after a crash *path* holds the old content or the new, and once we return the new.

    Args:
        path: written to a scratch file beside it, which is then renamed.
        data: all of the new content.
        mode: of the new file from its first octet on, less the umask.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename is on disk only with its folder
    finally:
        os.close(folder)
