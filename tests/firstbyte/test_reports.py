"""Tests for terminal output about runs: verdicts, URLs of reports, and runs that were made inside the lab."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import reports
from experiments import Order, Outcome, conduct
from firstbyte import verdicts, where
from firstbyte.cli import main
from runtime import LabDownError
from tests.experiments.lab import MemoryLab
from tests.experiments.test_conduct import Some


def made(folder: Path, *, control: bool = False) -> Outcome:
    """Return the outcome of a run of the experiment `Some`."""
    return asyncio.run(conduct(Some, Order(control=control), MemoryLab(), folder, addresses={}))


class LabWithResults:
    """A lab whose results folder is *folder*; if *folder* is None, the lab is not running."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def require_up(self) -> None:
        """Raise `LabDownError` if the lab is not running."""
        if self.folder is None:
            raise LabDownError("the lab is not up")

    def fetch_results(self, into: Path) -> Sequence[Path]:
        """Create a synthetic run in *into*, as if it had been copied from the lab."""
        reports.keep(made(into), into)
        return []


@contextmanager
def no_lab(_: str) -> Iterator[LabWithResults]:
    """Yield a lab that is not running."""
    yield LabWithResults(None)


def shown(outcome: Outcome, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    verdicts.show(verdicts.Done(outcome, folder))
    return " ".join(capsys.readouterr().out.split())


def test_a_control_that_fails_says_that_it_must(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = made(tmp_path, control=True)
    text = shown(outcome, tmp_path, capsys)
    assert text.startswith("some: control failed as it must")
    assert outcome.result.verdict.exit_code == 1


@pytest.mark.parametrize("port", ["8080", "18080"])
def test_a_run_inside_the_lab_says_where_a_browser_finds_its_report(
    port: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTBYTE_CONSOLE_PORT", port)
    folder = Path("/srv/results/some/20261128T100000Z")
    expected = f"report: http://127.0.0.1:{port}/results/some/20261128T100000Z/report.html"
    assert shown(made(tmp_path), folder, capsys).endswith(expected)


@pytest.mark.parametrize("up", [True, False])
def test_runs_made_inside_the_lab_are_listed_outside(
    up: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def outside(_: str) -> Iterator[LabWithResults]:
        yield LabWithResults(tmp_path if up else None)

    monkeypatch.setattr(where, "outside", outside)
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 0
    assert ("some/20" in capsys.readouterr().out) == up


@pytest.mark.parametrize("columns", ["80", "40"])
def test_the_identifier_of_a_run_is_never_shortened(
    columns: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Long lines wrap rather than being truncated, because users copy a run's identifier to `--compare`."""
    runs = ["renewal-under-load/20261128T100000Z", "renewal-under-load/20261128T110000Z"]
    for run in runs:
        folder = tmp_path / "results" / run
        folder.mkdir(parents=True)
        body = {"verdict": "fail", "control": "it is reloaded as a restart", "quick": True, "measurement": {"lost": 3}}
        (folder / "result.json").write_text(json.dumps(body))
    monkeypatch.setattr(where, "outside", no_lab)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 0
    listed = capsys.readouterr().out
    assert [run for run in runs if run not in listed] == []
    assert "…" not in listed
    assert main(["report", "--compare", *runs, "--json"]) == 0
    times = [run["time"] for run in json.loads(capsys.readouterr().out)["runs"]]
    assert times == ["2026-11-28T10:00:00Z", "2026-11-28T11:00:00Z"]
