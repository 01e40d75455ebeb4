"""Tests on a running lab that the course's checkers refuse an unchanged lab and accept the model solutions."""

import json
import shlex
import sys
import time
from pathlib import Path

import pytest

from lessons import EXERCISES, draw
from tests.system.conftest import Shell

pytestmark = pytest.mark.system

STUDENT = "model student"
#: Exercises whose checker examines the lab.
IN_THE_LAB = [slug for slug in EXERCISES if draw(slug, STUDENT).inspect is not None]
#: Defines `firstbyte` for the shell that runs the model solutions.
FUNCTION = f'firstbyte() {{ {shlex.quote(sys.executable)} -m firstbyte "$@"; }}; '


@pytest.mark.parametrize("slug", IN_THE_LAB)
def test_a_checker_refuses_what_is_not_done_and_accepts_the_model_solution(shell: Shell, slug: str) -> None:
    if shell.lab.runtime != "netns":
        pytest.skip("covered on netns")
    began = time.time()
    exercise = draw(slug, f"{STUDENT} {began}")  # new numbers in each run, because a revocation cannot be undone
    answer = None if exercise.answer is None else exercise.answer.value
    # Other tests also leave sockets in TIME-WAIT, so an exercise with a typed answer is tried without the answer.
    untouched = exercise.check(None, shell.lab.call, began)
    assert not all(each.ok for each in untouched), untouched
    try:
        for command in exercise.commands:
            done = shell.here("sh", "-c", FUNCTION + command)
            assert done.code == 0 or "trace" in command, done.err  # a trace of a name that does not exist fails
        solved = exercise.check(answer, shell.lab.call, began)
        assert all(each.ok for each in solved), solved
    finally:
        for command in exercise.undo:
            shell.here("sh", "-c", FUNCTION + command)


def test_the_command_line_keeps_the_outcome(shell: Shell, tmp_path: Path) -> None:
    words = ["--student", STUDENT, "--progress", str(tmp_path / "progress.json")]
    refused = shell.firstbyte("lesson", "check", "names", *words)
    assert refused.code == 1
    assert "not solved yet; the task: Publish the name" in refused.out
    answer = draw("slow-start", STUDENT).answer
    assert answer is not None
    right = shell.firstbyte("lesson", "check", "slow-start", str(answer.value), *words)
    assert (right.code, right.out.splitlines()[-1]) == (0, "solved"), right.err
    graded = json.loads(shell.firstbyte("lesson", "grade", str(tmp_path / "progress.json"), "--json").out)
    assert [(each["student"], each["points"]) for each in graded] == [(STUDENT, 1)]
