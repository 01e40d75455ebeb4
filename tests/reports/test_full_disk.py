"""Tests for results on a full disk, simulated by a tmpfs of 64 KiB."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

import reports
from experiments import Order, Verdict, archive, conduct
from experiments.undo_log import Undo, UndoLog
from tests.experiments.lab import MemoryLab
from tests.experiments.test_conduct import Some

#: Capacity of the tmpfs in bytes.
SIZE = 64 * 1024


class Chatty(Some):
    """An experiment whose raw data does not fit on the disk."""

    async def measure(self, run):
        await super().measure(run)
        run.raw["samples"] = "x" * SIZE


@pytest.fixture
def small(tmp_path):
    """Yield a results folder with a capacity of `SIZE` bytes; skip the test if the user cannot mount a tmpfs."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=False, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"this user cannot mount a tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path, leave: int) -> None:
    """Fill the disk until only *leave* bytes are free."""
    taken = folder / "somebody-else"
    room = os.statvfs(folder)
    taken.write_bytes(b"x" * (room.f_bavail * room.f_frsize - leave))


def run(kind, lab, folder):
    return asyncio.run(conduct(kind, Order(), lab, folder, addresses={}))


def no_file_is_partial(folder):
    for path in folder.rglob("*"):
        assert not path.name.endswith(".tmp")
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".html":
            assert path.read_text().endswith("</html>\n")
    return True


def test_files_that_fit_are_kept_and_the_run_is_invalid(small):
    lab = MemoryLab()
    outcome = run(Chatty, lab, small)
    folder = reports.keep(outcome, small)
    names = {path.name for path in folder.iterdir()}
    assert {"result.json", "report.html", "lost.svg", "counters.json"} <= names
    assert "raw.json" not in names
    kept = json.loads((folder / "result.json").read_text())
    assert (kept["verdict"], kept["reasons"]) == ("invalid", ["not all of it could be kept: No space left on device"])
    assert (outcome.result.verdict.exit_code, lab.untouched) == (4, True)
    assert no_file_is_partial(small)
    assert "some" in (small / "index.html").read_text()


def test_the_result_is_kept_without_room_for_its_report(small):
    outcome = run(Some, MemoryLab(), small)
    fill(small, leave=3 * 4096)
    folder = reports.keep(outcome, small)
    names = {path.name for path in folder.iterdir()}
    assert ("result.json" in names, "report.html" in names) == (True, False)
    (kept,) = archive.runs(small)
    assert (kept.verdict, kept.page) == ("invalid", "result.json")


def test_a_result_that_cannot_be_kept_leaves_nothing_behind(small):
    outcome = run(Some, MemoryLab(), small)
    fill(small, leave=0)
    with pytest.raises(OSError, match="No space left"):
        reports.keep(outcome, small)
    assert list((small / "some").iterdir()) == []
    assert no_file_is_partial(small)


def test_on_a_disk_that_fills_up_nothing_more_is_injected_and_everything_is_undone(small):
    lab = MemoryLab()

    class Filling(Some):
        async def measure(self, run):
            await run.lab.link("access", "near", rtt_ms=80)
            fill(small, leave=0)
            await run.lab.fault("edge", "naive_reload")
            raise AssertionError("a fault that could not be written down was injected")

    result = run(Filling, lab, small).result
    assert (result.verdict, lab.untouched) == (Verdict.INVALID, True)
    assert result.reasons == ["it could not go on: [Errno 28] No space left on device"]
    assert not (small / ".undo.json").exists()


def test_the_undo_log_on_a_full_disk_keeps_its_entries(small):
    undo_log = UndoLog(small)
    one = Undo("link access:near", "wan", "DELETE", "/admin/links/access/near")
    undo_log.add(one)
    fill(small, leave=0)
    with pytest.raises(OSError, match="No space left"):
        undo_log.add(Undo("fault", "edge", "DELETE", "/admin/faults/x"))
    again = UndoLog(small)
    again.load()
    assert again.undos == undo_log.undos == [one]
