"""Tests for a user's own experiments: the files that `firstbyte new` writes, and invalid files."""

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from experiments import parameters
from firstbyte import own, where
from firstbyte.cli import main
from firstbyte.experiment import TAKEN
from firstbyte.new import template

KINDS = {"scenario": "run", "drill": "drill"}
#: Minimal valid experiment; each test removes one part of it.
LEAST = """
from dataclasses import dataclass
from experiments import Control, Experiment

@dataclass(frozen=True)
class Parameters: pass

class Mine(Experiment[Parameters]):
    name, claim = "mine", "It runs."
    settings = Parameters
    control = Control("nothing", fails=("something",))
    def predict(self): return {}
    async def measure(self, run): pass
    def conclude(self, run): pass
"""


class RecordingLab:
    """A lab seen from outside that records the command line and standard input of a run."""

    def __init__(self) -> None:
        self.command: list[str] = []
        self.input = b""

    def require_up(self) -> None:
        pass

    def run_lab(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> int:
        assert stdin is not None
        self.command, self.input = list(arguments), stdin.read()
        return 0

    def fetch_results(self, into: Path) -> list[Path]:
        """Create and return the results folder of a synthetic run of the experiment `mine`."""
        folder = into / "mine" / "20261128T100000Z"
        folder.mkdir(parents=True)
        (folder / "report.html").touch()
        return [folder]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RecordingLab:
    made = RecordingLab()

    @contextmanager
    def outside(_: str) -> Iterator[RecordingLab]:
        yield made

    monkeypatch.setattr(where, "outside", outside)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_new_writes_an_experiment_that_loads(
    kind: str, lab: RecordingLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", kind, "cold-start-2"]) == 0
    assert f"firstbyte {KINDS[kind]} ./cold-start-2.py --quick" in capsys.readouterr().out
    loaded = own.load("./cold-start-2.py", TAKEN)
    assert (loaded.kind.name, loaded.kind.__name__) == ("cold-start-2", "ColdStart2")
    assert loaded.source == (tmp_path / "cold-start-2.py").read_bytes()
    assert "my-" not in loaded.source.decode()
    experiment = loaded.kind(parameters.bind(loaded.kind.settings, quick=True))
    assert {f"{name}" for name in experiment.predict()} >= set(loaded.kind.control.fails)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["new", "scenario", "mine"], "mine.py exists: remove it, or choose another name"),
        (["new", "drill", "handshake"], "the name 'handshake' is taken by an experiment of firstbyte: choose another"),
        (
            ["new", "drill", "Mine!"],
            "name: expected lower-case words joined by hyphens, for example my-scenario; got 'Mine!'",
        ),
        (["new", "host", "mine"], "kind: expected one of scenario, drill; got 'host'"),
    ],
    ids=["exists", "taken", "no-name", "no-kind"],
)
def test_new_refuses(
    words: list[str], message: str, lab: RecordingLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("as it was")
    assert main(words) == 2
    assert capsys.readouterr().err == f"firstbyte new: error: {message}\n"
    assert (tmp_path / "mine.py").read_text() == "as it was"


@pytest.mark.parametrize("verb", ["run", "drill"])
def test_outside_the_file_is_sent_to_the_standard_input_of_the_run(
    verb: str, lab: RecordingLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(LEAST)
    assert main([verb, "./mine.py", "--quick", "--seed", "3"]) == 0
    assert lab.command[:6] == [verb, "-", "--seed", "3", "--times", "1"]
    assert "--quick" in lab.command
    assert lab.input.decode() == LEAST
    assert capsys.readouterr().err == "report: results/mine/20261128T100000Z/report.html\n"


def test_a_file_on_standard_input_is_an_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(template("drill", "piped").encode())))
    loaded = own.load("-", TAKEN)
    assert (loaded.kind.name, loaded.kind.file) == ("piped", "./piped.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("def x(:\n", ", line 1: invalid syntax", id="syntax-error"),
        pytest.param(
            "\n\nundefined\n", ", line 3: NameError: name 'undefined' is not defined", id="fails-when-imported"
        ),
        pytest.param(
            "import nosuch_package\n",
            ", line 1: ModuleNotFoundError: No module named 'nosuch_package'",
            id="import-of-nothing",
        ),
        pytest.param(
            "x = 1\n", ": expected one class derived from experiments.Experiment, found none", id="no-experiment"
        ),
        pytest.param(
            LEAST + "class Other(Mine):\n    name = 'other'\n",
            ": expected one class derived from experiments.Experiment, found Mine, Other",
            id="two-experiments",
        ),
        pytest.param(
            LEAST.replace("    def conclude(self, run): pass\n", ""),
            ": Mine lacks a method: conclude",
            id="no-conclusion",
        ),
        pytest.param(
            LEAST.replace("control = ", "contrl = "),
            ": expected Mine.control to be a Control, got None",
            id="no-control",
        ),
        pytest.param(
            LEAST.replace("settings = Parameters", "settings = int"),
            ": expected Mine.settings to be a dataclass, got <class 'int'>",
            id="no-parameters",
        ),
        pytest.param(
            LEAST.replace('"mine"', '"My own"'),
            ": Mine.name: expected lower-case words joined by hyphens, for example my-scenario; got 'My own'",
            id="name-of-no-folder",
        ),
        pytest.param(
            LEAST.replace('"mine"', '"year"'),
            ": the name 'year' is taken by an experiment of firstbyte: choose another",
            id="name-of-another",
        ),
        pytest.param("raise SystemExit(7)\n", ", line 1: SystemExit: 7", id="exits"),
        pytest.param("x = 1\0\n", "", id="null-byte"),
        pytest.param("#" * (own.MAX_SIZE + 1), ": expected at most 1048576 bytes", id="too-large"),
    ],
)
def test_a_file_that_is_no_experiment_is_one_line_and_exit_code_2(
    text: str, message: str, lab: RecordingLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(text)
    assert main(["run", "mine.py", "--quick"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"firstbyte run: error: mine.py{message}")
    assert lab.command == []


def test_a_file_that_is_not_there_is_one_line(lab: RecordingLab, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drill", "./nosuch.py"]) == 2
    assert capsys.readouterr().err == "firstbyte drill: error: ./nosuch.py: No such file or directory\n"


def test_a_parameter_of_an_own_experiment_is_refused_before_it_is_sent(
    lab: RecordingLab, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["new", "scenario", "mine"])
    assert main(["run", "mine.py", "--set", "repeat=3"]) == 2
    assert "got 'repeat'; did you mean 'repeats'?" in capsys.readouterr().err
    assert lab.command == []
