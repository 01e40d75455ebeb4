"""Tests for the command line outside the lab when a run inside the lab is killed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from firstbyte import cli as command_line
from firstbyte import where
from runtime import LabDownError

KILLED = 137


class DyingLab:
    """A lab whose first run is killed; afterwards, the lab is either still running or gone."""

    def __init__(self, *, gone: bool) -> None:
        self.gone = gone
        self.ran: list[list[str]] = []

    def require_up(self) -> None:
        """Raise `LabDownError` if the lab is gone after the killed run."""
        if self.gone and self.ran:
            raise LabDownError("the lab is not up")

    def run_lab(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> int:
        """Record the arguments of the run; report the first run as killed."""
        self.ran.append(list(arguments))
        return KILLED if len(self.ran) == 1 else 0

    def fetch_results(self, into: Path) -> list[Path]:
        """Return no folders, because the killed run has no results."""
        del into
        return []


@pytest.mark.parametrize("gone", [False, True], ids=["the run alone", "the lab as well"])
def test_what_a_killed_run_left_is_undone_unless_its_lab_is_gone(
    gone: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = DyingLab(gone=gone)

    @contextmanager
    def outside(_: str) -> Iterator[DyingLab]:
        yield lab

    monkeypatch.setattr(where, "outside", outside)
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["run", "resolution", "--quick"]) == 4
    # No undo if the lab is gone, because Compose would create its networks and volumes again.
    assert [words[-1] for words in lab.ran[1:]] == ([] if gone else ["--undo"])
    assert ("nothing to undo: the lab is not up" in capsys.readouterr().err) == gone
