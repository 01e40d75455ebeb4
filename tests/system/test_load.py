"""Tests for the locustfile inside the lab's network, with the lab's names, certificates and round-trip times."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from generator.tally import Tally
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


def test_histograms_of_workers_on_three_machines_add_up_exactly(shell: Shell, tmp_path: Path) -> None:
    if shell.lab.runtime != "netns":
        pytest.skip("covered on netns, where the hosts have the locustfile")
    root = Path(__file__).parents[2]
    locust = (sys.executable, "-m", "locust", "-f", str(root / "loadtest" / "locustfile.py"), "--loglevel", "ERROR")
    machines = ("edge-far", "news", "resolver")
    tmp_path.chmod(0o777)  # hosts run as another user

    def run(host: str, *words: str) -> tuple[int, str]:
        # The working directory is writable: Locust's libraries keep caches there.
        answer = shell.on(host, "env", f"HOME={tmp_path}", *locust, *words, "--tally", str(tmp_path / f"{host}.json"))
        return answer.code, answer.err

    load = ("--headless", "-u", "3", "-r", "100", "-t", "3s", "--arrival-rate", "40", "--arrival-seed", "7")
    master = ("--master", "--expect-workers", "3", "--host", "https://www.example.com", *load, "PooledUser")
    with ThreadPoolExecutor() as threads:
        workers = [threads.submit(run, host, "--worker", "--master-host", "198.19.1.10") for host in machines]
        assert run("client", *master)[0] == 0
        assert [worker.result() for worker in workers] == [(0, "")] * 3
    merged, *parts = (
        Tally.from_json(json.loads((tmp_path / f"{host}.json").read_text())) for host in ("client", *machines)
    )
    assert [part.ok["pooled"] > 60 for part in parts] == [True] * 3
    total = Tally()
    for part in parts:
        total.merge(part)
    assert total.as_json() == merged.as_json()
