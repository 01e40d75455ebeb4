"""Tests for subjects: programs that join the lab, and leave nothing behind.

Docker is run by hand (services/subject/README.md says what was run): installing nginx and certbot in an image takes
longer than all tests in this file.
"""

import json
import urllib.request
from pathlib import Path

import pytest

from runtime import Lab
from tests import judges
from tests.system.conftest import Shell

pytestmark = pytest.mark.system

NAME = "mine.example.com"
RECIPES = Path(__file__).parents[2] / "docs" / "subjects"


@pytest.fixture(autouse=True)
def _in_namespaces(lab: Lab) -> None:
    if lab.runtime != "netns":
        pytest.skip("on Docker, a subject needs an image with nginx and certbot, and building it takes a minute")


def nothing_is_left(shell: Shell) -> bool:
    """Return whether neither a host, nor a record, nor a place on the console's map is left of the subject."""
    with urllib.request.urlopen(f"{shell.lab.topology.console_url}api/state", timeout=10) as response:
        state = json.load(response)
    on_the_map = {host["name"] for region in state["regions"] for host in region["hosts"]}
    records = shell.on("client", "python", "-c", f"import socket; socket.gethostbyname({NAME!r})")
    return not shell.lab.subjects() and "mine" not in on_the_map and records.code != 0


def test_a_recipe_joins_with_a_certificate_of_the_labs_ca_and_leaves_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nginx with certbot joins; tests/drills/test_subject.py has the verdicts of the drills about such a subject."""
    judges.require("nginx", "certbot")
    monkeypatch.chdir(RECIPES / "nginx-certbot")
    monkeypatch.setenv("FIRSTBYTE_PROJECT", str(shell.lab.topology.project))
    try:
        joined = shell.firstbyte("join", "--name", NAME, "--life", "240", "--", "./serve.sh")
        assert joined.code == 0, joined.err
        assert "port 443: certificate of the lab's CA" in joined.out
        address = next(each.address for each in shell.lab.subjects())
        assert {"mine": address} == {each.name: each.address for each in shell.lab.status() if each.name == "mine"}
    finally:
        left = shell.firstbyte("leave", "--all")
    assert (left.code, left.out) == (0, f"{NAME} has left\n")
    assert nothing_is_left(shell)


def test_a_subject_that_dies_is_one_line_and_leaves_nothing(shell: Shell) -> None:
    answer = shell.firstbyte("join", "--name", NAME, "--", "sh", "-c", "echo no configuration; exit 3")
    assert answer.err == f"firstbyte join: error: {NAME} ended with exit code 3: no configuration\n"
    assert answer.code == 1
    assert nothing_is_left(shell)
