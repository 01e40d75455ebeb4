"""Lets an experiment run operator commands, such as ``firstbyte pki rotate root``, on the machine outside the lab.

The root's key is mounted only on the ceremony's host, which no host of the lab can start.  The process that started the
experiment from outside runs the command and returns its output.  The two processes exchange files in the lab's results
folder.
"""

import asyncio
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hostfiles.atomic import atomic_write

#: Host name that marks an entry of the undo log as an operator command; the command is stored as the path of the entry.
OPERATOR = "operator"
#: Folder for these files, inside the results folder; names that begin with a dot are not copied out of the lab.
FOLDER = ".operator"
#: Names of three files: the next command, the command being run, and the output of the last command.
ASKED, TAKEN, REPLIED = "asked", "taken", "replied"
#: Beginnings of the commands that the process outside runs; it refuses all others.
ALLOWED = (("pki", "rotate"),)
#: Interval between checks for a reply, and time-out of a command, in seconds.
POLL, TIMEOUT = 0.05, 180.0


class NoOperatorError(OSError):
    """No process outside the lab runs operator commands for this experiment."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> dict[str, Any]:
        """The last line of the standard output, parsed as a JSON object; empty if there is none."""
        lines = self.out.strip().splitlines()
        return dict(json.loads(lines[-1])) if lines else {}


class Operator(Protocol):
    """Runs operator commands: `Mailbox`, or an in-memory operator in tests."""

    async def run(self, *words: str) -> Reply:
        """Run ``firstbyte`` with *words*; return its exit code and output."""


class NoOperator:
    """Refuses all commands; used if the experiment was started inside the lab."""

    async def run(self, *words: str) -> Reply:
        """Raise `NoOperatorError`."""
        command = f"firstbyte {' '.join(words)}"
        raise NoOperatorError(
            f"`{command}` needs the ceremony's host: start the drill with `firstbyte` outside the lab"
        )


class Mailbox:
    """The experiment's side of the exchange: writes a command to a file, and waits for the file with the reply."""

    def __init__(self, results: Path) -> None:
        """Prepare to exchange files in the lab's *results* folder."""
        self._folder = results / FOLDER

    async def run(self, *words: str) -> Reply:
        """Run ``firstbyte`` with *words* outside the lab; return its exit code and output.

        Raises:
            NoOperatorError: the process outside has not replied in time.
        """
        number, replied = secrets.token_hex(8), self._folder / REPLIED
        self._folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self._folder / ASKED, json.dumps({"number": number, "words": words}).encode())
        try:
            async with asyncio.timeout(TIMEOUT):
                while True:
                    if replied.exists() and (body := json.loads(replied.read_bytes())).pop("number") == number:
                        return Reply(**body)
                    await asyncio.sleep(POLL)  # polls: no event signals a new file
        except TimeoutError:
            raise NoOperatorError(f"`firstbyte {' '.join(words)}`: no reply within {TIMEOUT:g} s") from None


def is_allowed(words: list[str]) -> bool:
    """Return whether the process outside the lab runs the command *words*."""
    return any(tuple(words[: len(each)]) == each for each in ALLOWED)
