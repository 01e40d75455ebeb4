"""Tests that kill one host after another under light load: the console reports each, and the lab loses no request.

This machine sends ten HTTPS requests and ten DNS queries per second through published ports.  The next host is killed
while the previous one is still recovering, so that all nineteen hosts take only about 90 seconds.
"""

import http.client
import json
import os
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, TypeVar

import pytest
from dnslib import DNSRecord

from runtime import DockerLab, LabError
from tests.system.conftest import Shell

pytestmark = pytest.mark.system
T = TypeVar("T")

CONSOLE = "http://127.0.0.1:8080"
EDGE, RESOLVER = ("127.0.0.1", 8443), ("127.0.0.1", 5300)
NAME = "www.example.com"
#: Time-out in seconds for the console to report a failure: two polls, 2 s apart, each with its own time-out.
NOTICED = 30.0
#: Time-out in seconds from the start of a host until the console shows it as healthy.
RECOVERED = 60.0
#: Time in seconds after the start of a host during which requests may still fail.
COMING_BACK = 20.0
#: Interval between two requests of the load, in seconds.
PAUSE = 0.1
#: Time-out for one request in seconds, which must be long enough for the edge to skip a dead origin.
PATIENCE = 8.0
#: Request kinds that may fail while a given host is down; for all other hosts, no request may fail.
COSTS = {"edge": {"https"}, "resolver": {"dns"}}
#: Hosts in the order in which they are killed; no host depends on the one before or after it. `wan` and `console` have
#: separate tests.
IN_TURN = (
    "ns1", "catalog-1", "root-a", "edge", "tld-test", "catalog-3", "resolver", "news", "root-b", "catalog-2",
    "ns2", "edge-far", "tld-com", "client", "ns-news", "arena", "ca",
)  # fmt: skip


@dataclass(slots=True)
class Outcome:
    """Result of one request of the load."""

    kind: str
    began: float
    error: str = ""


@dataclass(slots=True)
class Load:
    """Load generator: sends requests to the edge and the resolver, in two threads, until it is stopped."""

    root_pem: str
    outcomes: list[Outcome] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Start the load."""
        context = ssl.create_default_context(cafile=self.root_pem)
        for kind, ask in (("https", lambda: fetch(context)), ("dns", query_from_a_new_port)):
            self._threads.append(threading.Thread(target=self._run, args=(kind, ask), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the load."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE + 1)

    def _run(self, kind: str, ask: Callable[[], None]) -> None:
        while not self._over.wait(PAUSE):
            outcome = Outcome(kind, time.time())
            try:
                ask()
            except (OSError, http.client.HTTPException, ValueError) as error:
                outcome.error = f"{type(error).__name__}: {error}"
            self.outcomes.append(outcome)

    def served(self, since: float) -> bool:
        """Return whether at least one request of each kind that began after *since* has succeeded."""
        return {o.kind for o in self.outcomes if not o.error and o.began > since} == {"https", "dns"}


def fetch(context: ssl.SSLContext) -> None:
    """Fetch one item from the edge, with verification of the edge's certificate."""
    connection = http.client.HTTPSConnection(NAME, context=context, timeout=PATIENCE)
    raw = socket.create_connection(EDGE, PATIENCE)
    try:
        connection.sock = context.wrap_socket(raw, server_hostname=NAME)
        connection.request("GET", "/items/syn")
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status} {body.decode()[:200]}")
        json.loads(body)
    finally:
        connection.close()
        raw.close()


def query_from_a_new_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        question(sock)


def question(sock: socket.socket) -> None:
    """Query the resolver for the address of the edge."""
    sock.settimeout(PATIENCE)
    asked = DNSRecord.question(NAME)
    sock.sendto(bytes(asked.pack()), RESOLVER)
    answer = DNSRecord.parse(sock.recv(4096))
    if answer.header.id != asked.header.id or not answer.rr:
        raise ValueError(f"no answer: rcode {answer.header.rcode}")


def console_state() -> dict[str, Any]:
    with urllib.request.urlopen(f"{CONSOLE}/api/state", timeout=5) as response:
        state: dict[str, Any] = json.load(response)
    return state


def statuses(state: dict[str, Any]) -> dict[str, str]:
    return {host["name"]: host["status"] for region in state["regions"] for host in region["hosts"]}


def wait_for(what: str, seconds: float, found: Callable[[], T | None]) -> tuple[float, T]:
    """Poll *found* until its result is true; return the elapsed seconds and the result.

    Fails the test with the message *what* after *seconds*.
    """
    began = time.monotonic()
    while True:
        # Read the clock before the poll, so that one more poll takes place at the deadline.
        waited, last = time.monotonic() - began, ""
        try:
            if it := found():
                return waited, it
        except (OSError, ValueError, http.client.HTTPException, LabError) as error:
            last = f" ({error})"
        if waited > seconds:
            pytest.fail(f"{what}: not within {seconds:.0f} s{last}")
        time.sleep(0.2)  # polling interval


def is_healthy(host: str) -> bool:
    return statuses(console_state())[host] == "ok"


def all_healthy() -> bool:
    return all(status == "ok" for status in statuses(console_state()).values())


def alarm_of(host: str) -> dict[str, Any] | None:
    """Return the console's alarm for *host*; None if there is none."""
    alarms = console_state()["alarms"]
    return next((alarm for alarm in alarms if host in alarm["subject"].replace(",", "").split()), None)


def state_without_router() -> dict[str, Any] | None:
    """Return the console's state if it reports the router as down; otherwise None."""
    state = console_state()
    return state if "The router is down" in state["verdict"]["text"] else None


@pytest.fixture(scope="module")
def load(root_pem: str, lab: DockerLab) -> Iterator[Load]:
    """Yield a load that runs during all tests of this file, on a lab that is healthy at the start."""
    wait_for("the lab is healthy before the first kill", 30, all_healthy)
    with Load(root_pem) as running:
        wait_for("the load is served", 10, lambda: running.served(0))
        yield running
    # Restart hosts that a failed test left stopped.
    for host in lab.status():
        if host.state == "exited" and host.name in {declared.name for declared in lab.topology.always}:
            lab.start(host.name)
    wait_for("the lab is healthy for the tests that follow", RECOVERED, all_healthy)


def test_without_the_router_the_console_says_so_and_recovers(load: Load, lab: DockerLab) -> None:
    lab.kill("wan")
    try:
        wait_for("the console reports wan", NOTICED, lambda: alarm_of("wan"))
        _, seen = wait_for("the console reports that the router is down", NOTICED, state_without_router)
        assert [alarm["subject"] for alarm in seen["alarms"]] == ["wan"]
    finally:
        lab.start("wan")
    began = time.time()
    wait_for("all hosts are healthy once wan is back", RECOVERED, all_healthy)
    wait_for("requests are served once wan is back", RECOVERED, lambda: load.served(began))


def test_every_host_in_turn(load: Load, lab: DockerLab) -> None:
    if lab.runtime == "docker" and "CI" in os.environ:
        pytest.skip("CI kills every host in network namespaces; here it kills wan, resolver, console and ca")
    hosts = {host.name for host in lab.topology.always}
    assert hosts == {*IN_TURN, "wan", "console"}
    began, report, dead, before = time.time(), [], {}, None
    for host in IN_TURN:
        killed = time.time()
        lab.kill(host)
        try:
            noticed, alarm = wait_for(f"the console names {host}", NOTICED, partial(alarm_of, host))
            if before is not None:
                wait_for(f"{before} is healthy again", RECOVERED, partial(is_healthy, before))
        finally:
            lab.start(host)
        dead[host] = (killed, time.time() + COMING_BACK)
        assert alarm["means"], f"the console does not explain what the loss of {host} means"
        report.append(f"{host}: named after {noticed:.1f} s: {alarm['text']}")
        before = host
    wait_for("all hosts are healthy", RECOVERED, all_healthy)
    ended = time.time()
    wait_for("requests are served", RECOVERED, lambda: load.served(ended))
    print("\n".join(report))
    lost = [
        f"{outcome.kind} at {outcome.began:.1f}: {outcome.error}"
        for outcome in load.outcomes
        if outcome.error
        and outcome.began >= began  # ignore failures from other tests' kills
        and not any(
            killed - PATIENCE <= outcome.began <= until
            for host, (killed, until) in dead.items()
            if outcome.kind in COSTS.get(host, set())
        )
    ]
    assert lost == [], "\n".join(report)


def test_a_client_that_keeps_its_source_port_reaches_a_restarted_resolver(load: Load, lab: DockerLab) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        question(sock)
        lab.kill("resolver")
        lab.start("resolver")
        began = time.time()
        wait_for("others are answered", RECOVERED, lambda: load.served(began))
        question(sock)


def test_a_killed_console_reports_every_host_again(load: Load, lab: DockerLab) -> None:
    lab.kill("console")
    with pytest.raises(OSError):
        console_state()
    lab.start("console")
    wait_for("the console is back and sees every host", RECOVERED, all_healthy)
    began = time.time()
    wait_for("requests are served", RECOVERED, lambda: load.served(began))


def test_a_certificate_that_the_ca_acknowledged_survives_a_crash_of_the_ca(shell: Shell, lab: DockerLab) -> None:
    before = {entry["serial"] for entry in lab.call("ca", "GET", "/admin/certificates")["certificates"]}
    lab.call("news", "POST", "/admin/renew", timeout=30)
    serial = lab.call("news", "GET", "/admin/certificate")["serial"]
    assert serial not in before
    lab.kill("ca")
    lab.start("ca")
    wait_for(
        "the CA answers",
        RECOVERED,
        lambda: statuses(console_state())["ca"] == "ok" and lab.call("ca", "GET", "/health"),
    )
    after = {entry["serial"] for entry in lab.call("ca", "GET", "/admin/certificates")["certificates"]}
    assert after >= before | {serial}
    # Check that the ACME account of `news` is still valid, through another renewal.
    lab.call("news", "POST", "/admin/renew", timeout=30)
    assert lab.call("news", "GET", "/admin/certificate")["serial"] != serial
    assert shell.on("lab", "curl", "-sS", "--cacert", "/srv/trust/root.pem", "https://news.example.com/news").code == 0
