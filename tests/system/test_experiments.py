"""Tests that run experiments on the lab in quick mode, most of them in one runtime, and one control.

On a busy machine a run may be `invalid` (exit code 4).  Such a run is repeated; after `TRIES` invalid runs, the test is
skipped, and the skip message gives the reasons.
"""

import json
from pathlib import Path

import pytest

from runtime import Lab
from tests.system.conftest import Answer, Shell

pytestmark = pytest.mark.system

INVALID = 4
TRIES = 2
#: Experiments that must pass, and the runtime for each (None: both).  `resolution` has a separate test below;
#: test_readme covers `handshake` and `renewal-under-load`, the latter including its control.
PASSING = [
    (("run", "time-wait"), "docker"),
    (("drill", "broken-material"), "docker"),
    (("drill", "leaf-expiry"), "netns"),
    (("run", "flow-control", "--set=buffers=65536"), "netns"),
    (("run", "reliable-stream", "--set=packets=120", "--set=share=0.08", "--set=intervals_ms=20,300"), "netns"),
    (("run", "omission", "--set=window_s=10", "--set=stall_s=1.5"), "netns"),
    (("run", "time-wait-why", "--set=repeats=3"), "netns"),
    (("run", "encryption", "--set", "speeds=2"), "netns"),
    (("run", "impostor"), "netns"),
    (("run", "snapshots", "--set", "losses=0.01"), "netns"),
]
#: Experiments whose control must fail, and the runtime; test_write_your_own runs two more controls, in both runtimes.
CONTROLS = [(("run", "time-wait"), "docker")]


def conduct(shell: Shell, *words: str) -> tuple[Answer, dict[str, object]]:
    """Run an experiment, at most `TRIES` times until a run is valid; skip the test if none is."""
    for _ in range(TRIES):
        answer = shell.firstbyte(*words, "--quick", "--json", timeout=300)
        if answer.code != INVALID:
            break
    assert answer.out, answer.err
    result = json.loads(answer.out)
    if answer.code == INVALID:
        pytest.skip(f"{' '.join(words)}: this machine was not fit to measure, {TRIES} times: {result['reasons']}")
    return answer, result


@pytest.mark.parametrize(("words", "runtime"), PASSING, ids=["-".join(words[:2]) for words, _ in PASSING])
def test_it_passes(shell: Shell, words: tuple[str, ...], runtime: str | None) -> None:
    if runtime not in {None, shell.lab.runtime}:
        pytest.skip(f"covered on {runtime}")
    answer, result = conduct(shell, *words)
    assert result["verdict"] == "pass", result["reasons"]
    assert answer.code == 0


@pytest.mark.parametrize(("words", "runtime"), CONTROLS, ids=["-".join(words) for words, _ in CONTROLS])
def test_its_control_fails_as_it_should(shell: Shell, words: tuple[str, str], runtime: str) -> None:
    if runtime != shell.lab.runtime:
        pytest.skip(f"covered on {runtime}")
    answer, result = conduct(shell, *words, "--control")
    assert result["verdict"] == "fail"
    assert answer.code == 1


def test_a_run_that_passes_leaves_a_report_with_its_picture(shell: Shell) -> None:
    answer, result = conduct(shell, "run", "resolution")
    assert (answer.code, result["verdict"]) == (0, "pass"), result["reasons"]
    reports = [Path(line.partition("report: ")[2]) for line in answer.err.splitlines() if line.startswith("report: ")]
    assert len(reports) == 1, answer.err
    names = {path.name for path in reports[0].parent.iterdir()}
    assert {"result.json", "report.html", "resolution.svg", "counters.json"} <= names


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("run", "handshak"), "did you mean 'handshake'?"),
        (("run", "handshake", "--set", "rtt_ms=-1"), "expected rtt_ms to be a number (ms) from 5 to 500, got -1"),
        (("run", "handshake", "--set", "speed=1"), "expected a parameter of"),
        (("run", "all", "--set", "repeats=1"), "expected --set with one experiment"),
        (("run",), "expected a name (resolution, "),
    ],
)
def test_a_wrong_experiment_or_parameter_is_refused_in_one_line(
    shell: Shell, words: tuple[str, ...], says: str
) -> None:
    answer = shell.firstbyte(*words)
    assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
    assert says in answer.err


def test_the_next_run_reverts_what_a_killed_run_left(shell: Shell, lab: Lab) -> None:
    undo = (
        '[{"text": "link access:near", "host": "wan", "method": "DELETE", '
        '"path": "/admin/links/access/near", "body": null}]'
    )
    lab.call("wan", "PUT", "/admin/links/access/near", {"rtt_ms": 77})
    try:
        wrote = shell.on("lab", "sh", "-c", f"echo '{undo}' > /srv/results/.undo.json")
        assert wrote.code == 0, wrote.err
        answer = shell.firstbyte("run", "resolution", "--quick", "--json")
        assert "an earlier run was killed: undoing 1 injection" in answer.err
        links = {(each["from"], each["to"]): each["rtt_ms"] for each in lab.call("wan", "GET", "/admin/links")["links"]}
    finally:
        lab.call("wan", "DELETE", "/admin/links/access/near")
    assert links["access", "near"] == 20
