"""The command line as a contract: help with examples, exit codes, and every command that our documents show."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firstbyte.cli import _parser, main

ROOT = Path(__file__).parents[2]
VERBS = ("up", "down", "status", "logs", "exec", "stop", "start", "kill", "pause", "unpause", "link", "trace", "run", "drill", "pki", "report")  # fmt: skip
DOCUMENTS = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")}
)
#: Where a document shows a command line of ours: alone, on this machine, or in a container of the service `lab`.
COMMAND = re.compile(
    r"(?:^|[`$(] ?)(?:docker compose run --rm(?: -T)? lab|(?:\.venv/bin/)?firstbyte) ((?:"
    + "|".join(VERBS)
    + r")\b[^`\n|>&#…]*)",
    re.MULTILINE,
)
#: Words that stand for something else.
PLACEHOLDERS = re.compile(r"[A-Z]{2,}|\[|…|\.\.\.|\|")


def shown() -> list[tuple[str, str]]:
    """Return (document, arguments) of every command line that could be typed as it stands."""
    found = []
    for path in DOCUMENTS:
        for arguments in COMMAND.findall(path.read_text(encoding="utf-8")):
            words = re.split(r"\s{3,}", arguments)[0].strip().rstrip(".,;:)")
            if " " in words and not PLACEHOLDERS.search(words):  # a verb alone is being talked about
                found.append((path.relative_to(ROOT).as_posix(), words))
    return sorted(set(found))


def test_documents_show_commands() -> None:
    assert len(shown()) > 40


@pytest.mark.parametrize(("document", "arguments"), shown(), ids=lambda value: value.replace(" ", "_"))
def test_a_command_in_the_documents_is_one(document: str, arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        parsed = _parser().parse_args(shlex.split(arguments))
    except SystemExit:
        pytest.fail(f"{document}: {capsys.readouterr().err}")
    assert parsed.command == arguments.split(maxsplit=1)[0]


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_two_invocations(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    examples = capsys.readouterr().out.partition("examples:")[2]
    assert len(re.findall(rf"^ +firstbyte {verb}\b", examples, re.MULTILINE)) >= 2


@pytest.mark.parametrize("words", [[], ["nosuch"], ["link", "access"], ["link", "access:near", "--loss", "2"], ["trace"], ["status", "--nosuch"], ["logs", "--tail", "few"]], ids=" ".join)  # fmt: skip
def test_wrong_usage_exits_with_2_and_says_why(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_without_an_engine_it_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    monkeypatch.setenv("FIRSTBYTE_RUNTIME", "docker")
    assert main(["status"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("firstbyte status: error: no Docker engine answers on unix:///nonexistent")


@pytest.mark.parametrize(("verb", "code", "said"), [("drill", 4, ["firstbyte drill: interrupted before anything was measured"]), ("status", 130, [])])  # fmt: skip
def test_ctrl_c_while_it_starts_is_no_traceback(verb: str, code: int, said: list[str]) -> None:
    """Half a second of imports, each told by Python itself as it ends: Ctrl-C comes in the middle of them."""
    # Tests that run in the background of a shell inherit an ignored SIGINT, and so would what they start.
    command = ["env", "--default-signal=INT", sys.executable, "-X", "importtime", "-m", "firstbyte", verb, "all"]
    told = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with told:
        assert told.stderr
        for line in told.stderr:
            if line.split("|")[-1].strip() == "argparse":
                break
        told.send_signal(signal.SIGINT)
        lines = [line for line in told.stderr.read().splitlines() if not line.startswith("import time:")]
    assert lines == said
    assert told.returncode == code
