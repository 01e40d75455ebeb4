"""Experiments on the running lab: three scenarios and three drills, quickly, and a control of each kind.

On a busy machine a run may be `invalid` (exit code 4): it proves nothing, in either direction, and is tried again.
"""

import json

import pytest

from tests.system.conftest import Shell

pytestmark = pytest.mark.system

INVALID = 4
TRIES = 3
PASSING = [
    ("run", "handshake"),
    ("run", "time-wait"),
    ("run", "resolution"),
    ("drill", "renewal-under-load"),
    ("drill", "broken-material"),
    ("drill", "leaf-expiry"),
]
CONTROLS = [("run", "time-wait"), ("drill", "renewal-under-load")]


def conduct(shell: Shell, *words: str) -> tuple[int, dict[str, object]]:
    """Run one experiment; again while the machine was too busy for it to mean anything."""
    for _ in range(TRIES):
        answer = shell.firstbyte(*words, "--quick", "--json")
        if answer.code != INVALID:
            break
    assert answer.out, answer.err
    return answer.code, json.loads(answer.out)


@pytest.mark.parametrize("words", PASSING, ids="-".join)
def test_it_passes(shell: Shell, words: tuple[str, str]) -> None:
    code, result = conduct(shell, *words)
    assert result["verdict"] == "pass", result["reasons"]
    assert code == 0


@pytest.mark.parametrize("words", CONTROLS, ids="-".join)
def test_its_control_fails_as_it_should(shell: Shell, words: tuple[str, str]) -> None:
    code, result = conduct(shell, *words, "--control")
    assert result["verdict"] == "fail"
    assert code == 1
