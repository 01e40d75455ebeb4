"""Secrets on disk: for their owner only, and whole or not at all."""

import os
from pathlib import Path


def write_secret(path: Path, data: bytes) -> None:
    """Write *data* to *path* with mode 0600; after a crash the old content is there, or the new."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
