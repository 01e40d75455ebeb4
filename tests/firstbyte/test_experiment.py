"""Tests for ``firstbyte run`` outside the lab: a killed run inside the lab, and results as JUnit XML."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
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


class KeepingLab(DyingLab):
    """A lab that runs a single experiment and returns its result."""

    def run_lab(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> int:
        """Record the arguments of the run; report that the run passed."""
        super().run_lab(arguments, stdin=stdin)
        return 0

    def fetch_results(self, into: Path) -> list[Path]:
        """Store the result of a passed run below *into*."""
        folder = into / "resolution" / "20261128T120000Z"
        folder.mkdir(parents=True)
        check = {"name": "round trips", "expected": "3", "got": "3", "ok": True}
        (folder / "result.json").write_text(json.dumps({"verdict": "pass", "took_s": 4.0, "checks": [check]}))
        return [folder]


@pytest.mark.parametrize(
    ("lab", "outcomes"),
    [(KeepingLab(gone=False), [[]]), (DyingLab(gone=True), [["error"]])],
    ids=["kept", "killed"],
)
def test_the_checks_of_a_run_are_kept_as_junit(
    lab: DyingLab, outcomes: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(where, "outside", lambda _: nullcontext(lab))
    monkeypatch.chdir(tmp_path)
    command_line.main(["run", "resolution", "--junit", "run.xml"])
    cases = ET.fromstring((tmp_path / "run.xml").read_text()).iter("testcase")  # noqa: S314 - a file that the test made
    assert [[each.tag for each in case] for case in cases] == outcomes
    assert "--junit" not in lab.ran[0]


def test_a_folder_that_does_not_exist_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = DyingLab(gone=False)
    monkeypatch.setattr(where, "outside", lambda _: nullcontext(lab))
    assert command_line.main(["run", "resolution", "--junit", str(tmp_path / "none" / "run.xml")]) == 2
    assert "--junit: expected a file in a folder that exists" in capsys.readouterr().err
    assert lab.ran == []
