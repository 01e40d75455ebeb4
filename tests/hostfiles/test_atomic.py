"""Tests for atomic file replacement."""

import os
from pathlib import Path

import pytest

from hostfiles.atomic import atomic_write


def test_a_file_has_its_mode_from_its_creation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        real(descriptor)

    monkeypatch.setattr("hostfiles.atomic.os.fsync", fsync)
    atomic_write(tmp_path / "key.pem", b"secret", 0o600)
    assert (tmp_path / "key.pem").read_bytes() == b"secret"
    assert modes == [0o600, tmp_path.stat().st_mode & 0o777]  # modes of the file and its directory, in fsync order


def test_the_old_content_stays_if_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_write(tmp_path / "pair.pem", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hostfiles.atomic.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(tmp_path / "pair.pem", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"pair.pem": b"old"}
