"""Tests for a second lab on the same machine, and for cleanup after an interrupted `docker compose run`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import Lab
from tests.runtime.conftest import free_port
from tests.system.conftest import Shell
from tests.waiting import comes_true

pytestmark = pytest.mark.system

NAME, PREFIX = "firstbyte-second", "10.77"
URL = "https://www.example.com/"


@dataclass(frozen=True, slots=True)
class Second:
    """Command line for a second lab that shares only the images with the first lab."""

    lab: Lab
    variables: dict[str, str]

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, **self.variables}
        return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=150)

    def firstbyte(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.run(sys.executable, "-m", "firstbyte", *arguments)

    def left(self) -> list[str]:
        """Return the remaining resources of the second lab: containers, networks and volumes, or the state folder."""
        if self.lab.runtime != "docker":
            state = Path(self.variables["FIRSTBYTE_STATE"])
            return [str(state)] if state.exists() else []
        label = f"label=com.docker.compose.project={NAME}"
        kinds = (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q"))
        return [line for kind in kinds for line in self.run("docker", *kind, "--filter", label).stdout.splitlines()]


@pytest.fixture
def second(lab: Lab, tmp_path: Path) -> Iterator[Second]:
    """Yield a second lab that is not running; shut it down after the test."""
    ports = {f"FIRSTBYTE_{host}_PORT": str(free_port()) for host in ("CONSOLE", "LOCUST", "EDGE", "RESOLVER")}
    settings = {
        "COMPOSE_PROJECT_NAME": NAME,
        "FIRSTBYTE_PREFIX": PREFIX,
        "FIRSTBYTE_FILES": str(tmp_path / "files"),
        **ports,
    }
    env_file = tmp_path / "second.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    variables = {
        "COMPOSE_ENV_FILES": str(env_file),
        "FIRSTBYTE_RUNTIME": lab.runtime,
        "FIRSTBYTE_STATE": str(tmp_path / "state"),
    }
    found = Second(lab, variables)
    yield found
    done = found.firstbyte("down")
    assert (done.returncode, found.left()) == (0, []), done.stderr


def test_two_labs_run_side_by_side(shell: Shell, second: Second) -> None:
    first = {s.name: s.state for s in shell.lab.status()}
    up = second.firstbyte("up", "--no-build")
    assert up.returncode == 0, up.stderr
    assert "console http://127.0.0.1:8080/" not in up.stdout
    status = second.firstbyte("status", "--json")
    assert status.returncode == 0, status.stdout
    addresses = {host["name"]: host["address"] for host in json.loads(status.stdout)["hosts"]}
    assert addresses["edge"] == f"{PREFIX}.20.10"
    for trace, prefix in ((second.firstbyte("trace", URL), PREFIX), (shell.firstbyte("trace", URL), "198.19")):
        out = trace.stdout if isinstance(trace, subprocess.CompletedProcess) else trace.out
        assert f"client → resolver {prefix}.2.53:53" in out, out
        assert "verified: www.example.com" in out
        assert re_predicted(out) == 142.0
    down = second.firstbyte("down")
    assert (down.returncode, second.left()) == (0, []), down.stderr
    assert {s.name: s.state for s in shell.lab.status()} == first
    assert shell.firstbyte("status").code == 0
    assert shell.firstbyte("trace", URL).code == 0


def re_predicted(trace: str) -> float:
    """Return the predicted time to first byte of the cold request in milliseconds, which depends only on the links."""
    return float(trace.partition("predicted ")[2].split()[0])


def test_a_run_that_was_cut_off_does_not_survive_down(lab: Lab, second: Second) -> None:
    if lab.runtime != "docker":
        pytest.skip(f"the lab runs on {lab.runtime}")
    project = ("docker", "compose", "--project-directory", str(lab.topology.project))
    assert second.firstbyte("up", "--no-build").returncode == 0
    process = subprocess.Popen(
        [*project, "run", "--rm", "-T", "lab", "idle"],
        env={**os.environ, **second.variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    one_off = ("docker", "ps", "-q", "--filter", f"name={NAME}-lab-run-")
    assert comes_true(lambda: second.run(*one_off).stdout, 30)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    second.run(*project, "--profile", "*", "down", "-v")
    assert second.run(*one_off).stdout, "Compose removes it by itself now: this test and the message of `up` can go"
    up = second.firstbyte("up", "--no-build")
    assert up.returncode == 3
    assert f"{NAME}-lab-run-" in up.stderr
    assert "started by `docker compose run`, and still there" in up.stderr
    assert second.firstbyte("down").returncode == 0
    assert second.left() == []
    up = second.firstbyte("up", "--no-build")
    assert up.returncode == 0, up.stderr
