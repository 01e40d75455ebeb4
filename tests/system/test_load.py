"""Tests for the locustfile inside the lab's network, with the lab's names, certificates and round-trip times."""

import json

import pytest

from tests.system.conftest import Shell

pytestmark = pytest.mark.system

#: Locust arguments for the near edge, and for the far edge with a round-trip time of 120 ms.
RUN = (
    "env",
    "HOME=/tmp",
    "locust",
    "-f",
    "/opt/locustfile.py",
    "--headless",
    "-r",
    "100",
    "-t",
    "8s",
    "--json",
    "--loglevel",
    "ERROR",
)


def entries(shell: Shell, *more: str) -> dict[tuple[str, str], dict[str, float]]:
    """Run Locust on the host ``lab``; return its statistics by (request type, name)."""
    if shell.on("lab", "test", "-e", "/opt/locustfile.py").code:
        pytest.skip("without an image Locust runs from the checkout, which tests/swarm covers")
    answer = shell.on("lab", *RUN, *more)
    assert answer.code == 0, answer.err
    return {(each["method"], each["name"]): each for each in json.loads(answer.out)}


def test_every_class_of_user_is_served_by_the_near_edge(shell: Shell) -> None:
    found = entries(shell, "-u", "10", "--host", "https://www.example.com")
    assert {key: each["num_failures"] for key, each in found.items() if each["num_failures"]} == {}
    assert {"GET", "dns", "connect", "tls", "first byte", "receive", "TCP", "DNS"} == {method for method, _ in found}
    assert {name.rpartition(" ")[2] for method, name in found if method == "DNS"} == {"NOERROR", "NXDOMAIN"}


def test_phases_are_the_round_trips_of_the_far_link(shell: Shell) -> None:
    found = entries(shell, "-u", "4", "--host", "https://far.example.com", "--paths", "/items", "FreshUser")
    for phase in ("connect", "tls"):  # one round trip of 120 ms for each: TCP handshake, TLS 1.3 handshake
        assert 119 <= found[phase, "/items (fresh)"]["min_response_time"] <= 145
