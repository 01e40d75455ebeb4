"""Test that an installed wheel starts the lab in network namespaces without a checkout."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from netns_engine import compose
from netns_engine.prerequisites import require_machine
from runtime import EngineError, find_project
from tests.runtime.conftest import free_port

pytestmark = pytest.mark.system


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Build the wheel and install it to a new virtual environment with this one's libraries; return its folder."""
    try:
        require_machine(compose.load(find_project() / "docker-compose.yml"))
    except EngineError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no network namespaces here: {error}")
    venv, root = tmp_path / "venv", find_project()
    for command in (
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(tmp_path),
            str(root),
        ],
        [sys.executable, "-m", "venv", "--without-pip", str(venv)],
    ):
        subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("firstbyte-*.whl")
    python = str(venv / "bin" / "python")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    [packages] = (venv / "lib").glob("python3*/site-packages")
    (packages / "libraries.pth").write_text(
        sysconfig.get_path("purelib") + "\n"
    )  # Python ignores .pth files inside a folder added in this way, so the checkout stays invisible
    return venv


def test_an_installed_wheel_runs_the_lab_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    ports = {f"FIRSTBYTE_{host}_PORT": str(free_port()) for host in ("CONSOLE", "EDGE", "RESOLVER")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FIRSTBYTE_", "COMPOSE_"))}
    state = tmp_path / "state"
    environment = {**kept, **ports, "XDG_STATE_HOME": str(state)}
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, check=False, cwd=empty, env=environment, capture_output=True, text=True, timeout=150
        )

    firstbyte = str(installed / "bin" / "firstbyte")
    where = run(
        str(installed / "bin" / "python"), "-c", "import runtime; print(runtime.__file__, runtime.find_project())"
    )
    assert all(path.startswith(str(installed)) for path in where.stdout.split()), where
    try:
        up = run(firstbyte, "up")
        assert up.returncode == 0, up.stderr
        assert "(netns)" in up.stdout
        trace = run(firstbyte, "trace", "https://www.example.com/")
        assert trace.returncode == 0, trace.stderr
        assert "verified: www.example.com" in trace.stdout
        assert (state / "firstbyte" / "firstbyte" / "lab.json").exists()
    finally:
        down = run(firstbyte, "down")
    assert down.returncode == 0, down.stderr
    assert not (state / "firstbyte" / "firstbyte").exists()
    assert list(empty.iterdir()) == []
