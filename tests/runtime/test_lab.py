"""Tests for the health of hosts as the runtimes report it."""

from collections.abc import Sequence
from typing import Any

import pytest

from runtime.errors import LabDownError
from runtime.lab import HostStatus, recheck

UNHEALTHY = HostStatus("edge", "running", "unhealthy", "198.19.20.10")
CHECK = ("python", "-m", "hostfiles.probe")


class Answering:
    """A lab whose hosts all return the same result for every command."""

    def __init__(self, *answer: Any) -> None:
        self.answer, self.commands = answer, list[tuple[str, ...]]()

    def capture(self, host: str, command: Sequence[str]) -> Any:
        self.commands.append((host, *command))
        if isinstance(self.answer[0], Exception):
            raise self.answer[0]
        return self.answer


@pytest.mark.parametrize(
    ("answer", "health", "reason"),
    [
        pytest.param((0, b'{"status": "ok"}', b""), "healthy", "", id="it-has-recovered"),
        pytest.param(
            (1, b"[Errno 111] Connection refused\n", b""),
            "unhealthy",
            "[Errno 111] Connection refused",
            id="it-is-still-unhealthy",
        ),
        pytest.param((1, b"", b""), "unhealthy", "health check: exit code 1", id="a-silent-check"),
        pytest.param(
            (LabDownError("edge is paused, expected running"),),
            "unhealthy",
            "edge is paused, expected running",
            id="paused-meanwhile",
        ),
    ],
)
def test_an_unhealthy_host_is_checked_again_at_once(answer: Any, health: str, reason: str) -> None:
    lab = Answering(*answer)
    status = recheck(lab, UNHEALTHY, CHECK)  # type: ignore[arg-type]  # only capture() is used
    assert (status.health, status.reason, status.good) == (health, reason, health == "healthy")
    assert lab.commands == [("edge", *CHECK)]


@pytest.mark.parametrize("state", [("running", "healthy"), ("running", "starting"), ("paused", "unhealthy")])
def test_other_hosts_are_not(state: tuple[str, str]) -> None:
    lab = Answering(1, b"", b"")
    status = HostStatus("edge", *state, "198.19.20.10")
    assert recheck(lab, status, CHECK) is status  # type: ignore[arg-type]  # only capture() is used
    assert recheck(lab, UNHEALTHY, ()) is UNHEALTHY  # type: ignore[arg-type]  # no method of the lab is used
    assert lab.commands == []
