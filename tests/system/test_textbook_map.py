"""Tests that every command in docs/textbook-map.md exists and prints the evidence that its row names."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.conftest import Answer, Shell

MAP = Path(__file__).parents[2] / "docs" / "textbook-map.md"
#: Commands for which this test only checks that the experiment exists; experiments are slow and have their own tests.
LISTED = ("run", "drill")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the textbook map: a mechanism of the textbook."""

    mechanism: str
    words: tuple[str, ...]
    evidence: tuple[str, ...]


def rows() -> list[Row]:
    """Return the rows of all tables in the textbook map."""
    found = []
    for line in MAP.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 4 and cells[0] != "mechanism":
            (command,) = re.findall(r"`([^`]+)`", cells[1])
            found.append(Row(cells[0], tuple(shlex.split(command)), tuple(re.findall(r"`([^`]+)`", cells[2]))))
    return found


def test_every_row_names_a_command_and_evidence() -> None:
    assert len(rows()) > 15
    for row in rows():
        assert row.words[0] == "firstbyte", row
        assert row.evidence, row


@pytest.fixture(scope="module")
def ran() -> dict[tuple[str, ...], Answer]:
    """Return a cache of outputs by command; several rows name the same command, which then runs only once."""
    return {}


@pytest.mark.system
@pytest.mark.parametrize("row", rows(), ids=lambda row: row.mechanism.replace(" ", "-")[:48])
def test_the_command_shows_the_evidence(shell: Shell, ran: dict[tuple[str, ...], Answer], row: Row) -> None:
    if row.words[1] in LISTED:
        listed = shell.firstbyte(row.words[1], "--list")
        assert listed.code == 0, listed.err
        assert row.words[2] in listed.out
        return
    answer = ran.get(row.words) or shell.firstbyte(*row.words[1:])
    ran[row.words] = answer
    assert answer.code == 0, answer.err
    for each in row.evidence:
        assert each in answer.out, answer.out
