"""Tests for the command line: help texts with examples, exit codes, suggestions, and all commands in the documents."""

import json
import re
import shlex
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from firstbyte import certificates, cli, pki_arguments
from firstbyte.cli import main, parse
from firstbyte.dispatch import COMMANDS
from renewal.material import KEYS
from runtime import RUNTIMES

ROOT = Path(__file__).parents[2]
#: Commands for users; `idle` is only for the compose file.
VERBS = tuple(verb for verb in COMMANDS if verb != "idle")
DOCUMENTS = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")}
)
#: Pattern for a firstbyte command line in a document, run either on this machine or in a container of the service
#: `lab`.
COMMAND = re.compile(
    r"(?:^|[`$(] ?)(?:docker compose run --rm(?: -T)? lab|(?:\.venv/bin/)?firstbyte) ((?:"
    + "|".join(VERBS)
    + r")\b(?!:)[^`\n|<>&#…]*)",
    re.MULTILINE,
)
#: Pattern for placeholders such as NAME, […] or …, which make a command line unsuitable for a test.
PLACEHOLDERS = re.compile(r"[A-Z]{2,}|\[|…|\.\.\.|\|")


def shown() -> list[tuple[str, str]]:
    """Return every command line without placeholders in the documents: the document's path, and the arguments.

    Arguments after ``--`` belong to another program.
    """
    found = []
    for path in DOCUMENTS:
        for arguments in COMMAND.findall(path.read_text(encoding="utf-8")):
            words = re.split(r"\s{3,}| -- ", arguments)[0].strip().rstrip(".,;:)")
            if " " in words and not PLACEHOLDERS.search(words):  # text often mentions a command by name only
                found.append((path.relative_to(ROOT).as_posix(), words))
    return sorted(set(found))


def test_documents_show_commands() -> None:
    assert len(shown()) > 40


@pytest.mark.parametrize(("document", "arguments"), shown(), ids=lambda value: value.replace(" ", "_"))
def test_a_command_in_the_documents_is_one(document: str, arguments: str) -> None:
    assert parse(shlex.split(arguments)).command == arguments.split(maxsplit=1)[0], document


def help_of(capsys: pytest.CaptureFixture[str], *verb: str) -> str:
    with pytest.raises(SystemExit) as end:
        main([*verb, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_two_command_lines_that_are_understood(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples = re.findall(r"^  firstbyte (.+)$", help_of(capsys, verb).partition("examples:")[2], re.MULTILINE)
    assert len(examples) >= 2
    assert [each for each in examples if parse(shlex.split(each.partition(" > ")[0])).command != verb] == []


def test_help_lists_every_verb_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    listed = help_of(capsys)
    assert [verb for verb in VERBS if not re.search(rf"^    {verb}\b", listed, re.MULTILINE)] == []
    assert re.findall(r"^  (\d)  ", listed.partition("exit codes:")[2], re.MULTILINE) == list("01234")


def test_runtimes_are_those_of_the_lab() -> None:
    assert cli.RUNTIMES == RUNTIMES
    assert list(pki_arguments.REASONS) == list(certificates.REASONS)
    assert pki_arguments.KEYS == KEYS


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"firstbyte {version('firstbyte')}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param([], "firstbyte: error: expected COMMAND, got none; see `firstbyte --help`", id="no-verb"),
        pytest.param(
            ["new", "drill"],
            "firstbyte new: error: expected name, got none; see `firstbyte new --help`",
            id="too-few-words",
        ),
        pytest.param(["tarce"], "firstbyte: error: unknown command 'tarce'; did you mean 'trace'?", id="near-a-verb"),
        pytest.param(
            ["nosuch"],
            "firstbyte: error: unknown command 'nosuch'; `firstbyte --help` lists the commands",
            id="near-no-verb",
        ),
        pytest.param(
            ["run", "handshake", "--quik"],
            "firstbyte run: error: unknown option --quik; did you mean '--quick'?",
            id="near-an-option",
        ),
        pytest.param(
            ["--quick", "run", "handshake"],
            "firstbyte run: error: expected --quick after the command, as in `firstbyte run … --quick`",
            id="an-option-before-the-verb",
        ),
        pytest.param(
            ["--runtime", "dokcer", "up"],
            "firstbyte: error: --runtime: expected one of docker, netns; got 'dokcer'; did you mean 'docker'?",
            id="near-a-choice",
        ),
        pytest.param(
            ["down", "now"],
            "firstbyte down: error: unexpected word 'now'; see `firstbyte down --help`",
            id="a-word-too-many",
        ),
        pytest.param(
            ["link", "access"],
            "firstbyte link: error: REGION:REGION: expected REGION:REGION, for example access:near; got 'access'",
            id="no-link",
        ),
        pytest.param(
            ["logs", "--tail", "few"],
            "firstbyte logs: error: --tail: expected a number of lines or all, got 'few'",
            id="no-number",
        ),
        pytest.param(
            ["run", "handshake", "--times", "0"],
            "firstbyte run: error: --times: expected a whole number from 1 to 100, got '0'",
            id="out-of-bounds",
        ),
        pytest.param(
            ["run", "year"],
            "firstbyte run: error: year is a drill: firstbyte drill year",
            id="a-drill-as-a-scenario",
        ),
        pytest.param(
            ["drill", "pool"],
            "firstbyte drill: error: pool is a scenario: firstbyte run pool",
            id="a-scenario-as-a-drill",
        ),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{message}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "handshkae"], "did you mean 'handshake'?"),
        (["drill", "leaf-expiri"], "did you mean 'leaf-expiry'?"),
        (["run", "time-wait", "--set", "rates=3"], "did you mean 'rate'?"),
        (["exec", "eg", "--", "true"], "did you mean 'edge'?"),
        (["stop", "catalog1"], "did you mean 'catalog-1'?"),
    ],
    ids=["scenario", "drill", "parameter", "host-of-exec", "host-of-stop"],
)
def test_a_misspelt_name_is_answered_with_the_nearest(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTBYTE_RUNTIME", "netns")
    assert main(words) in {2, 3}
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "verb"),
    [
        (["status", "--json"], 3, "status"),
        (["run", "year", "--json"], 2, "run"),
        (["report", "--json", "--compare", "a", "b"], 2, "report"),
        (["run", "--json", "--quik"], 2, "run"),
    ],
    ids=["no-engine", "wrong-name", "no-such-run", "wrong-option"],
)
def test_with_json_an_error_is_json_on_standard_error(
    words: list[str], code: int, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    monkeypatch.setenv("FIRSTBYTE_RUNTIME", "docker")
    assert main(words) == code
    captured = capsys.readouterr()
    error = json.loads(captured.err)["error"]
    assert captured.out == ""
    assert (error["command"], error["exit_code"]) == (verb, code)
    assert error["message"]


def test_json_behind_the_dashes_belongs_to_the_other_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", "nosuch", "--", "program", "--json"]) in {2, 3}
    assert capsys.readouterr().err.startswith("firstbyte exec: error: ")


def test_without_an_engine_it_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    monkeypatch.setenv("FIRSTBYTE_RUNTIME", "docker")
    assert main(["status"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("firstbyte status: error: no Docker engine answers on unix:///nonexistent")


@pytest.mark.parametrize(
    ("verb", "code", "said"),
    [("drill", 4, ["firstbyte drill: interrupted before anything was measured"]), ("status", 130, [])],
)
def test_ctrl_c_while_it_starts_is_no_traceback(verb: str, code: int, said: list[str]) -> None:
    """Ctrl-C is sent during imports, which take half a second; ``-X importtime`` prints a line after each import."""
    # A background job of a shell inherits an ignored SIGINT, and so do its child processes; `env` restores the default.
    command = ["env", "--default-signal=INT", sys.executable, "-X", "importtime", "-m", "firstbyte", verb, "all"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr
        for line in process.stderr:
            if line.split("|")[-1].strip() == "argparse":
                break
        process.send_signal(signal.SIGINT)
        lines = [line for line in process.stderr.read().splitlines() if not line.startswith("import time:")]
    assert lines == said
    assert process.returncode == code


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("join my-image --name mine.example.com", ["my-image"]),
        ("join my-image --name mine.example.com -- env HOOK=no --x", ["my-image", "env", "HOOK=no", "--x"]),
        ("join --name mine.example.com -- ./serve.sh", ["./serve.sh"]),
    ],
    ids=["image", "image-and-command", "command"],
)
def test_the_command_of_an_image_follows_two_hyphens(line: str, words: list[str]) -> None:
    assert parse(line.split()).words == words
