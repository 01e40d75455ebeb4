"""The running lab, and a way to ask it through independent programs.

The fixture `lab` uses the lab that is up, or starts one and removes it afterwards.  Where no runtime answers, these tests
are skipped, and in CI they fail.
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

#: Seconds that a program may take.
TIMEOUT = 150.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard output that are not empty."""
        return [line for line in self.out.splitlines() if line.strip()]


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs programs on a host of the lab, or on this machine."""

    lab: Lab

    def on(self, host: str, *command: str) -> Answer:
        """Run *command* on *host*.

        With Docker, the host ``lab`` has the judges that its image carries.  In network namespaces they are this machine's:
        when one that *command* names is missing, the test is skipped.
        """
        if self.lab.runtime == "netns":
            judges.require_named_in(command)
        code, out, err = self.lab.capture(host, command)
        return Answer(code, out.decode(errors="replace"), err.decode(errors="replace"))

    def here(self, *command: str, text: str | None = None, timeout: float = TIMEOUT) -> Answer:
        """Run *command* on this machine, which reaches the lab through published ports; `judges.command` finds programs."""
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
        """Run our own command line on this machine."""
        return self.here(sys.executable, "-m", "firstbyte", *arguments, timeout=timeout)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Give the lab, up and healthy, with the host ``lab`` in addition."""
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
    """Give a way to run programs in and around the lab."""
    return Shell(lab)


@pytest.fixture(scope="session")
def root_pem(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the path of the lab's root certificate on this machine, fetched with the README's command."""
    answer = shell.firstbyte("pki", "root")
    assert answer.code == 0, answer.err
    path = tmp_path_factory.mktemp("trust") / "root.pem"
    path.write_text(answer.out, encoding="ascii")
    return str(path)
