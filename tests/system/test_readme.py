"""Tests that run every command of the README unchanged and compare its output with the README."""

import os
import re
from collections.abc import Iterator

import pytest

from tests import judges
from tests.house.test_layout import ROOT
from tests.readme import ELSEWHERE, README, Command, commands, words
from tests.system.conftest import Shell

COMMANDS = commands(README.read_text(encoding="utf-8"))
#: Time-out for one command in seconds; the longest command runs an experiment twice.
TIMEOUT = 400.0
#: Exit code of an experiment that is invalid because the machine was too busy, and maximum number of attempts.
INVALID, TRIES = 4, 2
#: Experiments take up to a minute each.  CI runs those of the README on Docker, and others in network namespaces
#: (test_experiments).
LONG = re.compile(r" (run|drill) \S+ --quick")


def test_the_readme_has_commands_and_real_outputs() -> None:
    assert len(COMMANDS) > 20
    assert sum(bool(command.output) for command in COMMANDS) >= 3
    texts = {command.text for command in COMMANDS}
    assert set(ELSEWHERE) <= texts, "a command that is tested elsewhere is no longer in the README"


def test_a_block_is_split_into_commands_and_outputs() -> None:
    markdown = "```console\n$ one \\\n    two\n$ three\nout\n  put\n```\ntext\n```\n$ four\n```\n"
    assert [(each.text, each.output) for each in commands(markdown)] == [
        ("one \\\n    two", ""),
        ("three", "out\n  put\n"),
    ]


def test_commands_are_translated_for_network_namespaces() -> None:
    (trace,) = commands("```console\n$ docker compose run --rm lab trace X\n```\n")
    assert str(trace.here("netns")).endswith("-m firstbyte trace X")
    both = commands("```console\n$ docker run --rm image\n$ docker compose run --rm lab trace X\n```\n")
    assert [each.here("netns") for each in both] == [None, None], "the second needs the container of the first"
    assert both[0].here("docker") == "docker run --rm image"


@pytest.fixture(scope="module")
def lab_of_a_reader(shell: Shell) -> Iterator[Shell]:
    """Yield a shell for the lab; afterwards, remove the file and the containers that the README's commands created.

    Containers exist only with Docker: those of Locust.
    """
    yield shell
    (ROOT / "root.pem").unlink(missing_ok=True)
    if shell.lab.runtime == "docker":
        remove = "docker compose --profile load rm --stop --force locust locust-worker"
        shell.here("bash", "-c", f"cd {ROOT} && {remove}")


@pytest.mark.system
@pytest.mark.parametrize(
    "command",
    COMMANDS,
    ids=[f"{number}-{re.sub(r'[^a-zA-Z]+', '-', each.text)[:50]}" for number, each in enumerate(COMMANDS)],
)
def test_it_works(lab_of_a_reader: Shell, command: Command) -> None:
    shell = lab_of_a_reader
    if command.text in ELSEWHERE:
        pytest.skip(f"not here: {ELSEWHERE[command.text]}")
    if shell.lab.runtime == "netns" and LONG.search(command.text) and "CI" in os.environ:
        pytest.skip("CI runs this experiment on docker")
    here = command.here(shell.lab.runtime)
    if here is None:
        pytest.skip(f"needs Docker, the lab is on {shell.lab.runtime}")
    first = here.split()[0]
    if first in judges.BY_NAME:
        here = " ".join([*judges.command(first, files=ROOT), *here.split()[1:]])
    for _ in range(TRIES):
        answer = shell.here("bash", "-c", f"cd {ROOT} && {here}", timeout=TIMEOUT)
        invalid = answer.code == INVALID or ("--times" in here and "invalid" in answer.out)
        if not invalid:
            break
    if invalid:
        pytest.skip(f"this machine was not fit to measure, {TRIES} times: {answer.err}")
    assert answer.code == command.code, answer.out + answer.err
    assert words(command.output) - words(answer.out) == set(), answer.out
