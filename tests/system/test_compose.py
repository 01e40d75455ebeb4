"""`docker compose` as a reader types it: every profile comes up, a second `up` changes nothing that matters."""

import hashlib

import pytest

from runtime import DockerLab, Lab
from tests.system.conftest import Shell

pytestmark = pytest.mark.system

PROFILES = [(), ("tools",), ("load",), ("tools", "load")]


@pytest.fixture
def engine(lab: Lab) -> None:
    """Skip where the lab runs without an engine: these commands are Docker's own."""
    if lab.runtime != "docker":
        pytest.skip(f"the lab runs on {lab.runtime}")


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("profiles", PROFILES, ids=["plain", "tools", "load", "both"])
def test_up_and_wait_succeeds_with(shell: Shell, profiles: tuple[str, ...]) -> None:
    project = ("docker", "compose", "--project-directory", str(shell.lab.topology.project))
    flags = [flag for profile in profiles for flag in ("--profile", profile)]
    try:
        answer = shell.here(*project, *flags, "up", "-d", "--wait", "--no-build")
        assert answer.code == 0, answer.err
    finally:
        if "load" in profiles:
            shell.here(*project, "--profile", "load", "rm", "--stop", "--force", "locust", "locust-worker")


def test_a_second_up_keeps_the_trust_anchor(shell: Shell) -> None:
    def anchor() -> str:
        return hashlib.sha256(shell.on("client", "cat", "/srv/trust/root.pem").out.encode()).hexdigest()

    before = anchor()
    shell.lab.up(["tools"], build=False)
    assert anchor() == before


@pytest.mark.usefixtures("engine")
def test_a_container_of_the_service_lab_is_all_that_a_reader_needs(shell: Shell) -> None:
    project = ("docker", "compose", "--project-directory", str(shell.lab.topology.project))
    answer = shell.here(*project, "run", "--rm", "-T", "lab", "trace", "https://www.example.com/")
    assert answer.code == 0, answer.err
    assert "TIME-WAIT" in answer.out
    assert "% names" in answer.out
    wrong = shell.here(*project, "run", "--rm", "-T", "lab", "trace", "https://nosuch.example.com/")
    assert wrong.code == 1
    assert "no such name" in wrong.err


@pytest.mark.usefixtures("engine")
def test_up_leaves_no_image_of_an_older_checkout_for_the_service_lab(shell: Shell) -> None:
    def image(name: str) -> str:
        return shell.here("docker", "image", "inspect", "--format", "{{.Id}}", name).out

    before = image("firstbyte-lab:local")
    assert shell.here("docker", "tag", "firstbyte:local", "firstbyte-lab:local").code == 0
    assert image("firstbyte-lab:local") == image("firstbyte:local") != before
    assert isinstance(shell.lab, DockerLab)
    shell.lab._renew_lab_image()
    assert image("firstbyte-lab:local") not in {"", image("firstbyte:local")}


def test_our_own_command_line_says_that_the_lab_is_up(shell: Shell) -> None:
    again = shell.firstbyte("up", "--no-build")
    assert again.code == 3
    assert "already up" in again.err
    status = shell.firstbyte("status")
    assert status.code == 0, status.out


WRONG = [
    (("exec", "nosuch", "--", "true"), 2, "unknown host 'nosuch'"),
    (("link", "access:nowhere", "--rtt", "80ms"), 2, "nowhere"),
    (("link", "access:near", "--rtt", "fast"), 2, "expected milliseconds"),
    (("trace", "gopher://www.example.com/"), 2, "expected a URL"),
    (("trace", "https://nosuch.example.com/"), 1, "no such name"),
    (("trace", "https://www.example.com:4/"), 1, "refused"),
    (("drill", "nosuch"), 2, "nosuch"),
    (("frobnicate",), 2, "frobnicate"),
]


@pytest.mark.parametrize(("words", "code", "says"), WRONG, ids=["-".join(words) for words, _, _ in WRONG])
def test_bad_input_gets_one_clear_line(shell: Shell, words: tuple[str, ...], code: int, says: str) -> None:
    answer = shell.firstbyte(*words)
    assert answer.code == code, answer
    assert says in answer.err
    assert "Traceback" not in answer.err
