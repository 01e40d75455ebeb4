"""Tests for output to terminals and pipes: character sets, escape codes and dates."""

import ast
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from firstbyte import terminal
from firstbyte.dispatch import COMMANDS

ROOT = Path(__file__).parents[2]
#: Packages with text that the command line prints.
PRINTING = (
    "lab/firstbyte",
    "lab/runtime",
    "lab/netns_engine",
    "lab/waterfall",
    "lab/telemetry",
    "loadtest/experiments",
    "loadtest/scenarios",
    "loadtest/theory",
    "pki/drills",
    "dns/stub",
)
#: Commands that print output without a running lab.
ALONE = [[verb, "--help"] for verb in COMMANDS] + [
    ["run", "--list"],
    ["run", "--list", "--json"],
    ["drill", "--list"],
    ["report"],
    ["status"],
    ["link"],
    ["pki", "list"],
    ["trace", "https://www.example.com/"],
    ["run", "handshake", "--quick"],
    ["run", "λ"],
    ["completion", "bash"],
]


def ran(*words: str, folder: Path, **environment: str) -> bytes:
    """Return the standard output and standard error of a command."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"LC_ALL", "PYTHONUTF8"}}
    here = {"FIRSTBYTE_PROJECT": str(ROOT), "FIRSTBYTE_RUNTIME": "docker", "DOCKER_HOST": "unix:///nonexistent"}
    command = [sys.executable, "-m", "firstbyte", *words]
    done = subprocess.run(
        command, check=False, capture_output=True, env={**inherited, **here, **environment}, cwd=folder
    )
    assert b"Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("words", ALONE, ids=" ".join)
def test_every_verb_prints_in_ascii(words: list[str], tmp_path: Path) -> None:
    said = ran(*words, folder=tmp_path, PYTHONIOENCODING="ascii")
    assert said.isascii()
    assert said.strip()


@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "latin-1"}], ids=str
)
def test_ascii_where_the_locale_asks_for_it(environment: dict[str, str], tmp_path: Path) -> None:
    listed = ran("run", "--list", folder=tmp_path, **environment)
    assert listed.isascii() or "PYTHONIOENCODING" in environment  # Latin-1 lacks Greek letters
    assert b"lambdaT/(1+lambdaT)" in listed


def test_ascii_on_request_and_utf_8_otherwise(tmp_path: Path) -> None:
    assert ran("run", "--list", "--ascii", folder=tmp_path, LC_ALL="C.UTF-8").isascii()
    assert "λT/(1+λT)".encode() in ran("run", "--list", folder=tmp_path, LC_ALL="C.UTF-8")


def test_every_character_in_our_texts_has_a_replacement() -> None:
    texts = [
        node.value
        for package in PRINTING
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    used = {letter for text in texts for letter in text if not letter.isascii()}
    assert {"█", "→", "×"} <= used
    assert used - set(terminal.ASCII) == set()


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
    ids=["terminal", "NO_COLOR", "dumb"],
)
def test_escape_codes_only_on_a_terminal_that_wants_them(
    environment: dict[str, str], coloured: bool, tmp_path: Path
) -> None:
    program = "from firstbyte import terminal; terminal.console().print('[bold red]fail[/] 12 → [dim]x[/]')"
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=theirs, env={**inherited, **environment}, cwd=tmp_path
    )
    os.close(theirs)
    said = os.read(ours, 4096)
    os.close(ours)
    assert (b"\x1b" in said) == coloured
    assert b"fail" in said


def test_a_pipe_gets_no_escape_codes(tmp_path: Path) -> None:
    program = "from firstbyte import terminal; terminal.console().print('[bold red]fail[/]')"
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=tmp_path).stdout
    assert said == b"fail\n"


def test_only_the_terminal_module_makes_consoles() -> None:
    """No other module creates a console, because such a console would ignore NO_COLOR."""
    found = [
        path.name
        for path in (ROOT / "lab/firstbyte").glob("*.py")
        if re.search(r"\bConsole\(", path.read_text(encoding="utf-8"))
    ]
    assert found == ["terminal.py"]


def test_moments_are_written_as_dates() -> None:
    assert terminal.date(0) == "1970-01-01 00:00 UTC"
    assert terminal.date("20261124T220000Z") == "2026-11-24 22:00 UTC"
    assert terminal.iso("20261124T220000Z") == "2026-11-24T22:00:00Z"
    assert terminal.iso("renamed by hand") == "renamed by hand"
