"""Tests for the demo's table of costs, which must show results of the current demo and not of earlier runs."""

import datetime as dt
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from drills import DRILLS
from experiments import archive
from firstbyte import demo
from scenarios import SCENARIOS


def test_it_runs_experiments_that_exist() -> None:
    known = {("run", kind.name) for kind in SCENARIOS} | {("drill", kind.name) for kind in DRILLS}
    assert set(demo.EXPERIMENTS) <= known


def test_an_earlier_run_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "COPIED", tmp_path)
    began = dt.datetime(2026, 11, 24, 12, 0, 0, tzinfo=dt.UTC)
    for time, control in (("20261124T115959Z", ""), ("20261124T120001Z", "no pool")):
        folder = tmp_path / "handshake" / time
        folder.mkdir(parents=True)
        body = {"name": "handshake", "verdict": "pass", "control": control}
        (folder / "result.json").write_text(json.dumps(body))
    assert demo._latest("handshake", began) is None
    folder = tmp_path / "handshake" / "20261124T120002Z"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({"name": "handshake", "verdict": "pass"}))
    latest = demo._latest("handshake", began)
    assert latest is not None
    assert latest.time == "20261124T120002Z"


def test_the_table_shows_theory_next_to_measurements() -> None:
    phase = {"name": "connect", "predicted_ms": 20.0, "measured_ms": 20.4}
    cold = {"phases": [phase], "ttfb_predicted_ms": 142.0, "ttfb_ms": 154.3}
    trace = {"cold": cold, "warm": {"ttfb_predicted_ms": 60.0, "ttfb_ms": 63.5}}
    body = {"verdict": "pass", "measurement": {"lost": 0}, "prediction": {"lost": 0}, "unit": {}}
    kept = archive.StoredRun("renewal-under-load", "20261124T120002Z", Path(), body)
    printed = io.StringIO()
    console = Console(width=100, file=printed)
    console.print(demo.costs(trace, [kept]))
    rows = [line.split() for line in printed.getvalue().splitlines()]
    assert ["opening", "a", "TCP", "connection", "20.0", "20.4", "ms"] in rows
    assert ["what", "warm", "caches", "and", "pools", "save", "82.0", "90.8", "ms"] in rows
    assert ["lost", "0", "0"] in rows
