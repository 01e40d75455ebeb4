"""Tests for runtime selection, and for commands on a lab that is not running."""

import gc
import json
from pathlib import Path

import pytest

from netns_engine.state import VERSION, StateFolder
from runtime import EngineError, LabDownError, NetnsLab, Topology, UsageError, choose, find_project


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param(
            json.dumps({"version": VERSION + 1, "supervisor": {"pid": 7}}),
            f"expected state of version {VERSION}, got {VERSION + 1}",
            id="another-version",
        ),
        pytest.param("{", "expected the state of a lab", id="not-json"),
        pytest.param(
            json.dumps({"version": VERSION, "supervisor": {"pid": 7}}), "expected the state of a lab", id="half"
        ),
    ],
)
@pytest.mark.parametrize("verb", ["up", "down", "status"])
def test_stale_state_is_refused_and_kept(tmp_path: Path, text: str, problem: str, verb: str) -> None:
    (tmp_path / "lab.json").write_text(text)
    lab = NetnsLab(Topology.load(find_project()), StateFolder(tmp_path))
    with pytest.raises(EngineError, match=problem) as caught:
        getattr(lab, verb)()
    assert caught.value.exit_code == 3
    assert (tmp_path / "lab.json").read_text() == text


def test_a_request_to_a_lab_that_is_not_up_says_so(tmp_path: Path) -> None:
    lab = NetnsLab(Topology.load(find_project()), StateFolder(tmp_path))
    assert {s.state for s in lab.status()} == {"absent"}
    for ask in (lab.require_up, lambda: lab.call("edge", "GET", "/health"), lambda: lab.kill("edge")):
        with pytest.raises(LabDownError, match="the lab is not up"):
            ask()


def test_an_unknown_runtime_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTBYTE_RUNTIME", "podman")
    with pytest.raises(UsageError, match="unknown runtime 'podman': expected one of docker, netns") as caught:
        choose(Topology.load(find_project()))
    assert caught.value.exit_code == 2


@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning")
def test_without_an_engine_it_is_netns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FIRSTBYTE_RUNTIME", raising=False)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing")
    monkeypatch.setenv("FIRSTBYTE_STATE", str(tmp_path))
    assert choose(Topology.load(find_project())).runtime == "netns"
    with pytest.raises(EngineError, match="no Docker engine answers"):
        choose(Topology.load(find_project()), "docker")
    # Collect the socket that the Docker SDK leaks without an engine, so that no later test gets the ResourceWarning.
    gc.collect()
