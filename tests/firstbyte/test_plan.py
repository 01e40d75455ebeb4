"""Tests for ``firstbyte plan``: output, exit codes, and the picture of the simulation."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from firstbyte.cli import main


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a temporary folder for the calibration and the results."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def code(*words: str) -> int:
    return main(["plan", *words])


def test_a_plan_is_a_table_with_formulas_and_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert code("--rps", "20000") == 0
    out = capsys.readouterr().out
    assert {"firstbyte run time-wait --quick", "firstbyte run dns-outage --quick"} <= {
        each.removeprefix("check it: ") for each in out.splitlines()
    }
    assert "measured now on" in out
    assert code("--rps", "20000") == 0
    assert "measured at" in capsys.readouterr().out


def test_json_holds_inputs_rows_and_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert code("--rps", "15k..20k", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["inputs"]["rps"] == [15_000, 20_000]
    assert found["costs"]["handshakes"]["1.3 ecdsa full"][0] > 0
    assert {"names", "pool", "identity"} <= {row["topic"] for row in found["rows"]}


@pytest.mark.parametrize(
    ("words", "exit_code", "expected"),
    [
        (["--rps", "many"], 2, "--rps: expected a rate"),
        (["--pool", "10"], 2, "--pool 10 cannot carry"),
        (["--pool", "0"], 2, "expected a whole number"),
        (["--simulate", "--rps", "1..2"], 2, "expected single values with --simulate"),
        (["--simulate", "--ttl", "0"], 2, "expected a TTL above 0"),
        (["--picture", "no/such/folder.svg"], 2, "cannot write no/such/folder.svg"),
        (["--settings", "apache"], 2, "nginx"),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    words: Sequence[str], exit_code: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code(*words) == exit_code
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1


def test_a_calibration_that_cannot_be_stored_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert code() == 1
    assert "cannot store the calibration" in capsys.readouterr().err


def test_a_simulation_agrees_with_its_closed_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert code("--clients", "1M", "--rps", "5k", "--simulate", "--json") == 0
    found = json.loads(capsys.readouterr().out)["simulated"]
    assert found["clients"] == 1_000_000
    for row in found["old_record"]:
        assert row["simulated"] == pytest.approx(row["closed_form"], abs=0.003)


def test_the_picture_shows_the_dots_of_the_lab(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results" / "ttl" / "20261128T120000Z"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"name": "ttl", "verdict": "pass", "parameters": {"rate": 0.4}}))
    answers = [(0.1 * i, i < 20) for i in range(40)]
    (folder / "raw.json").write_text(json.dumps({"answers after the change": {"T = 2 s": [], "T = 4 s": answers}}))
    assert code("--clients", "10k", "--simulate", "--picture", "plan.svg") == 0
    assert "dots of the lab: results/ttl/20261128T120000Z" in capsys.readouterr().out
    assert (tmp_path / "plan.svg").read_text().count("halo") >= 8
