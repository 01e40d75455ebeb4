"""Test of a rotation of the root while the lab runs: clients of three TLS libraries judge its chains."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from authority.rotation import STEPS
from hostfiles.layout import TRUST_ANCHOR
from tests.system.conftest import Shell

pytestmark = pytest.mark.system

#: Prints the verdict of each installed client on the edge's chain, as JSON: "", or the reason of the refusal.
JUDGE = f"""
import asyncio, json, pathlib
from drills import verifiers
print(json.dumps(asyncio.run(verifiers.judge("www.example.com", pathlib.Path("{TRUST_ANCHOR}")))))
"""
#: Clients that must have judged: three independent implementations of path validation.
NEEDED = {"openssl s_client", "openssl ocsp", "GnuTLS certtool", "cryptography"}


@pytest.fixture(autouse=True)
def _finished(shell: Shell, root_pem: str) -> Iterator[None]:
    """Complete the rotation after each test, and update the copy of the root that later tests use."""
    if shell.lab.runtime != "netns":
        pytest.skip("covered on netns")
    yield
    assert shell.firstbyte("pki", "rotate", "--finish").code == 0
    Path(root_pem).write_text(shell.firstbyte("pki", "root").out, encoding="ascii")


def test_clients_of_three_libraries_accept_the_chains_after_a_root_rotation(shell: Shell) -> None:
    answer = shell.firstbyte("pki", "rotate", "root", "--all", "--json")
    assert answer.code == 0, answer.err
    assert [json.loads(line)["performed"] for line in answer.lines] == list(STEPS["root"])
    judged = shell.on("lab", sys.executable, "-c", JUDGE)  # the drill `root-rollover` lets them judge after each step
    assert judged.code == 0, judged.err
    verdicts = json.loads(judged.out)
    assert verdicts.keys() >= NEEDED
    assert not {client: why for client, why in verdicts.items() if why}
