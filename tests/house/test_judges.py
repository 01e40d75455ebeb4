"""Tests for messages and exit codes on a machine without the judges or without a runtime.

Missing programs must be reported, and an untested lab must not exit with 0.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import judges
from tests.house.test_layout import ROOT


def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a test module in the same way as `make`, without a container engine."""
    settings = {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nonexistent", **environment}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=ROOT, env=settings, check=False, capture_output=True, text=True)


def program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Simulate a machine without any programs; return the only folder in its PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(judges, "SYSTEM_PATH", ())
    return tmp_path


def test_without_a_runtime_the_system_tests_fail_and_say_why(tmp_path: Path) -> None:
    done = run("tests.system", PATH=str(tmp_path))  # PATH without `ip`, `setpriv` and container engines
    assert done.returncode == 3
    assert "the lab was not tested" in done.stderr
    assert "docker: " in done.stderr
    assert "netns: " in done.stderr


def test_system_tests_that_are_all_skipped_are_no_success(tmp_path: Path) -> None:
    (tmp_path / "test_nothing.py").write_text(
        "import pytest\n@pytest.mark.system\ndef test_it(): pytest.skip('missing judge: dig')\n"
    )
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    options = ["--rootdir", str(tmp_path), "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    done = run("pytest", *options, "-m", "system", str(tmp_path))
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout
    assert "1 test was skipped because a program that judges the lab is missing: dig (1)" in done.stdout
    assert "install: apt-get install -y --no-install-recommends bind9-dnsutils" in done.stdout


def test_root_on_debian_gets_the_missing_judges_without_starting_their_daemons(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log, policy = bare / "log", bare / "policy"
    program(bare, "apt-get", f'echo "$@" >> {log}; if [ "$1" = install ]; then /bin/ls {policy} >> {log}; fi')
    program(bare, "apt-cache", '[ "$2" != promtool ]')  # Ubuntu has no promtool package
    program(bare, "curl", "true")
    monkeypatch.setattr(judges, "POLICY", policy)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("CI", raising=False)
    assert judges.main(["dig", "curl", "chromium", "promtool"]) == 0
    update, install, during = log.read_text().splitlines()
    assert update.startswith("update")
    assert install.endswith("--no-install-recommends bind9-dnsutils chromium fonts-dejavu-core")
    assert during == str(policy)
    assert not policy.exists()
    assert "judges: installing bind9-dnsutils, chromium, fonts-dejavu-core" in capsys.readouterr().out


def test_a_failed_installation_is_an_error_with_apts_reason(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program(bare, "apt-get", "echo 'E: no network' >&2; exit 100")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert judges.main([]) == 1
    assert "E: no network" in capsys.readouterr().err


@pytest.mark.usefixtures("bare")
def test_other_users_get_the_line_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("CI", raising=False)
    assert judges.main(["dig"]) == 0
    assert "apt-get install -y --no-install-recommends bind9-dnsutils" in capsys.readouterr().out
    monkeypatch.setenv("CI", "true")
    assert judges.main(["dig"]) == 1
    assert judges.main(["promtool"]) == 0, "optional"
    assert judges.main(["nosuch"]) == 2


@pytest.mark.usefixtures("bare")
def test_a_test_is_skipped_with_the_judges_that_its_command_names() -> None:
    judges.require_named_in(["sh", "-c", "echo digest; ip route"])
    with pytest.raises(pytest.skip.Exception, match="missing judge: dig, openssl"):
        judges.require_named_in(["sh", "-c", "dig +short a; openssl s_client </dev/null"])


def test_where_docker_has_the_image_its_judges_run(bare: Path) -> None:
    judges._image_is_here.cache_clear()
    program(bare, "docker", '[ "$1 $2 $3" = "image inspect firstbyte-lab:local" ]')
    try:
        command = judges.command("curl", "-sS", files=Path("/keys"))
        assert command[:2] == ["docker", "run"]
        assert command[-5:] == ["--volume", "/keys:/keys:ro", "firstbyte-lab:local", "curl", "-sS"]
        with pytest.raises(pytest.skip.Exception, match="missing judge: tshark"):
            judges.command("tshark")
    finally:
        judges._image_is_here.cache_clear()
