"""Fixtures for system tests: the running lab, and access to it through independent programs.

The fixture `lab` uses the running lab, or starts one and removes it afterwards.  If no runtime works, these tests are
skipped; in CI they fail.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from subprocess import PIPE

import pytest

from runtime import Lab, LabError, Topology, choose, find_project
from tests import judges

#: Time-out for one program, in seconds.
TIMEOUT = 150.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Exit code, standard output and standard error of a program."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Non-empty lines of standard output."""
        return [line for line in self.out.splitlines() if line.strip()]


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs programs on a host of the lab, or on this machine."""

    lab: Lab

    def on(self, host: str, *command: str) -> Answer:
        """Run *command* on *host*; return its output.

        With Docker, the image of the host ``lab`` contains the judges.  In network namespaces, the judges must be
        installed on this machine; if *command* uses a missing one, the test is skipped.
        """
        if self.lab.runtime == "netns":
            judges.require_named_in(command)
        code, out, err = self.lab.capture(host, command)
        return Answer(code, out.decode(errors="replace"), err.decode(errors="replace"))

    def here(self, *command: str, text: str | None = None, timeout: float = TIMEOUT) -> Answer:
        """Run *command* on this machine; return its output.

        The command reaches the lab through published ports; `judges.command` finds the program.
        """
        with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
            try:
                out, err = process.communicate(text, timeout)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)  # an interrupted experiment undoes its injections
                try:
                    process.communicate(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
        return Answer(process.returncode, out, err)

    def firstbyte(self, *arguments: str, timeout: float = TIMEOUT) -> Answer:
        """Run the firstbyte command line on this machine; return its output."""
        return self.here(sys.executable, "-m", "firstbyte", *arguments, timeout=timeout)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Yield a lab that is running and healthy, including the host ``lab``."""
    try:
        found = choose(Topology.load(find_project()))
    except LabError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no runtime: {error}")
    with found:
        was_up = any(host.state == "running" for host in found.status())
        found.up(["tools"])
        yield found
        if not was_up:
            found.down()


@pytest.fixture(scope="session")
def shell(lab: Lab) -> Shell:
    """Return a `Shell` for the lab."""
    return Shell(lab)


@pytest.fixture(scope="session")
def root_pem(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a copy of the lab's root certificate on this machine, fetched with the README's command."""
    answer = shell.firstbyte("pki", "root")
    assert answer.code == 0, answer.err
    path = tmp_path_factory.mktemp("trust") / "root.pem"
    path.write_text(answer.out, encoding="ascii")
    return str(path)
