"""Tests for `docker compose` and `firstbyte`: start with all profiles, repeated start, paused host, two labs."""

import hashlib
import re

import pytest

from runtime import DockerLab, Lab
from tests.system.conftest import Shell
from tests.waiting import comes_true

pytestmark = pytest.mark.system

PROFILES = [("load",), (), ("tools",), ("tools", "load")]


@pytest.fixture
def engine(lab: Lab) -> None:
    """Skip the test unless the lab runs on Docker, because these commands need a Docker engine."""
    if lab.runtime != "docker":
        pytest.skip(f"the lab runs on {lab.runtime}")


def compose_of(shell: Shell) -> tuple[str, ...]:
    """Return the `docker compose` command prefix for the lab."""
    return ("docker", "compose", "--project-directory", str(shell.lab.topology.project))


def test_a_second_up_keeps_the_trust_anchor(shell: Shell) -> None:
    def anchor() -> str:
        return hashlib.sha256(shell.on("client", "cat", "/srv/trust/root.pem").out.encode()).hexdigest()

    before = anchor()
    shell.lab.up(["tools"], build=False)
    assert anchor() == before


@pytest.mark.usefixtures("engine")
def test_a_container_of_the_service_lab_is_all_that_a_reader_needs(shell: Shell) -> None:
    project = compose_of(shell)
    answer = shell.here(*project, "run", "--rm", "-T", "lab", "trace", "https://www.example.com/")
    assert answer.code == 0, answer.err
    assert "TIME-WAIT" in answer.out
    assert "% names" in answer.out
    wrong = shell.here(*project, "run", "--rm", "-T", "lab", "trace", "https://nosuch.example.com/")
    assert wrong.code == 1
    assert "no such name" in wrong.err


@pytest.mark.usefixtures("engine")
def test_up_rebuilds_the_image_of_the_service_lab(shell: Shell) -> None:
    def image(name: str) -> str:
        return shell.here("docker", "image", "inspect", "--format", "{{.Id}}", name).out

    host, tools = (shell.lab.topology.host(name).image for name in ("edge", "lab"))
    before = image(tools)
    assert shell.here("docker", "tag", host, tools).code == 0
    assert image(tools) == image(host) != before
    assert isinstance(shell.lab, DockerLab)
    shell.lab._rebuild_lab_image()
    assert image(tools) not in {"", image(host)}


@pytest.mark.usefixtures("engine")
def test_up_with_any_profiles_succeeds_and_recreates_no_container(shell: Shell) -> None:
    """Further runs of `up`, with different profiles, build the images again but replace no container."""
    project = compose_of(shell)

    def containers() -> set[str]:
        found = shell.here(
            "docker",
            "ps",
            "-aq",
            "--no-trunc",
            "--filter",
            f"label=com.docker.compose.project={shell.lab.topology.name}",
        )
        return set(found.lines)

    try:
        before = containers()
        for profiles in PROFILES:
            flags = [flag for profile in profiles for flag in ("--profile", profile)]
            answer = shell.here(*project, *flags, "up", "-d", "--wait", "--build")
            assert answer.code == 0, answer.err
            assert before <= containers(), flags
            before = containers()
    finally:
        shell.here(*project, "--profile", "load", "rm", "--stop", "--force", "locust", "locust-worker")


@pytest.mark.usefixtures("engine")
def test_a_container_that_docker_run_starts_from_our_image_is_no_host(shell: Shell) -> None:
    image = shell.lab.topology.host("edge").image
    builder = shell.here(
        "docker", "image", "inspect", "--format", '{{index .Config.Labels "com.docker.compose.service"}}', image
    ).out.strip()
    before = {s.name: s.state for s in shell.lab.status()}
    started = shell.here("docker", "run", "-d", "--rm", image, "sleep", "60")
    assert started.code == 0, started.err
    try:
        assert {s.name: s.state for s in shell.lab.status()} == before
        # Every build labels the image with the same service, although the container of that service has exited.
        assert builder == "ceremony"
        assert before["ceremony"] == "exited"
    finally:
        shell.here("docker", "rm", "-f", started.out.strip())


def test_a_host_is_healthy_again_soon_after_it_was_paused(shell: Shell) -> None:
    host = "catalog-3"
    shell.lab.pause(host)
    try:
        paused = shell.firstbyte("status")
        assert paused.code == 1
        assert re.search(rf"{host} +paused", paused.out), paused.out
    finally:
        shell.lab.unpause(host)
    if shell.lab.runtime == "docker":  # Docker would not check the host again for five minutes
        name = f"{shell.lab.topology.name}-{host}-1"
        assert shell.here("docker", "inspect", "-f", "{{.State.Health.Status}}", name).out.strip() == "unhealthy"
    assert comes_true(lambda: shell.firstbyte("status").code == 0, 20), shell.firstbyte("status").out
    if shell.lab.runtime == "docker":  # else `up --wait` would fail until Docker checks the host again
        shell.lab.stop(host)
        shell.lab.start(host)
        assert comes_true(lambda: shell.firstbyte("status").code == 0, 20), shell.firstbyte("status").out


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
