"""Tests for subjects: programs that join the lab, and leave nothing behind.

Only namespaces are covered: on Docker, building a subject's image takes longer than all of this.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from runtime import Lab
from tests import judges
from tests.system.conftest import Shell
from tests.waiting import comes_true

pytestmark = pytest.mark.system

NAME = "mine.example.com"
RECIPES = Path(__file__).parents[2] / "docs" / "subjects"


@pytest.fixture(autouse=True)
def _in_namespaces(lab: Lab) -> None:
    if lab.runtime != "netns":
        pytest.skip("covered in namespaces")


def nothing_is_left(shell: Shell) -> bool:
    """Return whether neither a host, nor a record, nor a place on the console's map is left of the subject."""
    with urllib.request.urlopen(f"{shell.lab.topology.console_url}api/state", timeout=10) as response:
        state = json.load(response)
    on_the_map = {host["name"] for region in state["regions"] for host in region["hosts"]}
    records = shell.on("client", "python", "-c", f"import socket; socket.gethostbyname({NAME!r})")
    return not shell.lab.subjects() and "mine" not in on_the_map and records.code != 0


def test_a_recipe_without_its_reload_hook_joins_fails_the_drill_and_leaves(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    judges.require("nginx", "certbot", "curl")
    monkeypatch.chdir(RECIPES / "nginx-certbot")
    monkeypatch.setenv("FIRSTBYTE_PROJECT", str(shell.lab.topology.project))
    command = ("env", "HOOK=no", "EVERY=1", "./serve.sh")
    try:
        joined = shell.firstbyte("join", "--name", NAME, "--life", "18", "--", *command)
        assert joined.code == 0, joined.err
        assert "port 443: certificate of the lab's CA" in joined.out
        address = next(each.address for each in shell.lab.subjects())
        page = shell.on("client", "curl", "-sS", "--cacert", "/srv/trust/root.pem", f"https://{NAME}/")
        assert page.out == "served by nginx\n", page.err
        assert {"mine": address} == {each.name: each.address for each in shell.lab.status() if each.name == "mine"}
        monkeypatch.chdir(tmp_path)
        answer = shell.firstbyte("drill", "renewal-under-load", "--target", NAME, "--quick", "--json")
    finally:
        left = shell.firstbyte("leave", "--all")
    assert (left.code, left.out) == (0, f"{NAME} has left\n")
    assert nothing_is_left(shell)
    result = json.loads(answer.out)
    if result["verdict"] in {"invalid", "skipped"}:  # skipped: the certificate ended before the drill began
        pytest.skip(f"this machine was not fit to measure: {result['reasons']}")
    assert answer.code == 1, answer.err
    failed = {check["name"]: check["got"] for check in result["checks"] if not check["ok"]}
    assert "old certificate served until the end; certbot: --deploy-hook" in failed["renewed certificate is served"]


def test_a_subject_that_dies_is_one_line_and_leaves_nothing(shell: Shell) -> None:
    answer = shell.firstbyte("join", "--name", NAME, "--", "sh", "-c", "echo no configuration; exit 3")
    assert answer.err == f"firstbyte join: error: {NAME} ended with exit code 3: no configuration\n"
    assert answer.code == 1
    assert nothing_is_left(shell)


def test_ctrl_c_while_a_subject_starts_leaves_nothing(shell: Shell) -> None:
    command = [sys.executable, "-m", "firstbyte", "join", "--name", NAME, "--", "sleep", "600"]
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE) as process:
        try:
            assert comes_true(shell.lab.subjects, 30)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode
    assert nothing_is_left(shell)
