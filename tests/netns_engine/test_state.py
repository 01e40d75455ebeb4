"""Tests for the state folder, cgroup limits and privileges of a lab in network namespaces."""

import os
from pathlib import Path

import pytest

from netns_engine.cgroups import Limits, controllers
from netns_engine.host import open_to_all, privileges
from netns_engine.state import Process, StateFolder
from netns_engine.wires import hardware_address
from runtime import EngineError


def test_a_reused_pid_is_not_the_same_process() -> None:
    us = Process.of(os.getpid())
    assert us.alive
    assert not Process(us.pid, us.started - 1, us.boot).alive
    assert not Process(us.pid, us.started, "another boot").alive


def test_a_folder_records_its_supervisor(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    assert state.running() is None
    state.make()
    assert state.path.stat().st_mode & 0o777 == 0o700
    us = Process.of(os.getpid())
    state.record(us)
    assert state.running() == us
    state.record(Process(us.pid, 1, us.boot))
    assert state.supervisor() is not None
    assert state.running() is None


def test_clearing_keeps_other_files(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.make()
    (state.volumes / "ca").mkdir()
    state.record(Process.of(os.getpid()))
    state.clear(volumes=False)
    assert sorted(p.name for p in state.path.iterdir()) == ["logs", "volumes"]
    (state.path / "notes.txt").write_text("mine")
    state.clear(volumes=True)
    assert [p.name for p in state.path.iterdir()] == ["notes.txt"]


def test_a_second_up_at_the_same_time_is_refused(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    with (
        state.locked(),
        pytest.raises(EngineError, match="another `firstbyte up` or `down` is at work"),
        state.locked(),
    ):
        pass


# --- limits and privileges --------------------------------------------------------------------------------------------


def test_version_two_enables_controllers_for_groups(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("memory pids\n")
    found = controllers(tmp_path)
    assert [(each.name, each.limit) for each in found] == [("memory", "memory.max"), ("pids", "pids.max")]
    Limits(Path("/a/lab"), found).apply("edge", 42, memory=2**28, pids=None)
    [group] = tmp_path.glob("firstbyte-*/edge")
    assert (group / "memory.max").read_text() == str(2**28)
    assert (group / "cgroup.procs").read_text() == "42"
    assert not (group / "pids.max").exists()


def test_version_one_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "cgroup.procs").touch()
    assert [(each.name, each.limit) for each in controllers(tmp_path)] == [("memory", "memory.limit_in_bytes")]


def test_without_cgroups_there_is_no_limit_and_no_error(tmp_path: Path) -> None:
    assert controllers(tmp_path) == ()
    Limits(Path("/a/lab"), ()).apply("edge", 42, memory=1, pids=1)


def test_privileges_keep_only_what_the_entry_point_needs() -> None:
    assert privileges(1000, ("net_admin",), already=False) == [
        "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--inh-caps=-all", "--ambient-caps=-all",
        "--bounding-set=-all,+net_admin", "--no-new-privs",
    ]  # fmt: skip
    assert "--reuid=0" not in privileges(0, (), already=True)


def test_a_folder_below_a_closed_home_is_not_open_to_all(tmp_path: Path) -> None:
    inner = tmp_path / "home" / "venv"
    inner.mkdir(parents=True)
    inner.chmod(0o755)
    (tmp_path / "home").chmod(0o700)
    assert not open_to_all(inner)
    assert open_to_all(Path("/usr/bin"))


def test_a_hosts_hardware_address_follows_from_its_address() -> None:
    assert hardware_address("198.19.20.10") == "02:42:c6:13:14:0a"


@pytest.mark.parametrize(
    ("env_file", "environment", "folder"),
    [
        pytest.param("", {}, ".state", id="default"),
        pytest.param("COMPOSE_PROJECT_NAME=second", {}, ".state-second", id="another-project-name"),
        pytest.param("FIRSTBYTE_STATE=mine", {}, "mine", id="env-file"),
        pytest.param("FIRSTBYTE_STATE=mine", {"FIRSTBYTE_STATE": "/tmp/other"}, "/tmp/other", id="environment"),
    ],
)
def test_each_project_name_has_a_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env_file: str, environment: dict[str, str], folder: str
) -> None:
    for name in ("FIRSTBYTE_STATE", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".env").write_text(env_file)
    assert StateFolder.find(tmp_path).path == tmp_path / folder
