"""What the command line does outside the lab when its run inside it dies."""

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
    """A lab whose run is killed; afterwards it is up, or was taken down as well."""

    def __init__(self, *, gone: bool) -> None:
        self.gone = gone
        self.ran: list[list[str]] = []

    def require_up(self) -> None:
        """Raise `LabDownError` once the run is dead and the lab with it."""
        if self.gone and self.ran:
            raise LabDownError("the lab is not up")

    def run_lab(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> int:
        """Keep what was asked for; the first is killed."""
        self.ran.append(list(arguments))
        return KILLED if len(self.ran) == 1 else 0

    def fetch_results(self, into: Path) -> list[Path]:
        """Return no folder: nothing was kept."""
        return [into / "none"][:0]


@pytest.mark.parametrize("gone", [False, True], ids=["the run alone", "the lab as well"])
def test_what_a_killed_run_left_is_taken_back_unless_its_lab_is_gone(
    gone: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = DyingLab(gone=gone)

    @contextmanager
    def outside(_: str) -> Iterator[DyingLab]:
        yield lab

    monkeypatch.setattr(where, "outside", outside)
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["run", "resolution", "--quick"]) == 4
    # To ask a lab that is gone would make its networks and volumes anew.
    assert [words[-1] for words in lab.ran[1:]] == ([] if gone else ["--undo"])
    assert ("nothing to undo: the lab is not up" in capsys.readouterr().err) == gone
