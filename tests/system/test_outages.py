"""Every host is killed in turn under light load: the console says what broke, the lab recovers, nothing is lost.

The load comes from this machine through published ports: one HTTPS request and one question ten times a second.
While the next host dies the one before is coming back, so that all eighteen take about a minute and a half.
"""

import http.client
import json
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
#: Seconds for the console to say what broke: two looks, 2 s apart, each with its time-out.
NOTICED = 30.0
#: Seconds for a host that was started to be well in the console's eyes.
RECOVERED = 60.0
#: Seconds after a start in which a host may still cost the load.
COMING_BACK = 20.0
#: Seconds between two requests of the load.
PAUSE = 0.1
#: Seconds that a request may take while an origin is being passed over.
PATIENCE = 8.0
#: What each host's death may cost the load; the others may cost nothing.
COSTS = {"edge": {"https"}, "resolver": {"dns"}}
#: Neighbours in this order do not need each other; the router goes alone, so does the console itself.
IN_TURN = (
    "ns1", "catalog-1", "root-a", "edge", "tld-test", "catalog-3", "resolver", "news", "root-b", "catalog-2",
    "ns2", "edge-far", "tld-com", "client", "ns-news", "ca",
)  # fmt: skip


@dataclass(slots=True)
class Outcome:
    """One request of the load."""

    kind: str
    began: float
    error: str = ""


@dataclass(slots=True)
class Load:
    """Asks the edge and the resolver, in two threads, until told to stop."""

    root_pem: str
    outcomes: list[Outcome] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Begin."""
        context = ssl.create_default_context(cafile=self.root_pem)
        for kind, ask in (("https", lambda: fetch(context)), ("dns", question_from_a_fresh_port)):
            self._threads.append(threading.Thread(target=self._run, args=(kind, ask), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
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
        """Return whether both kinds were answered at least once among those that began after *since*."""
        return {o.kind for o in self.outcomes if not o.error and o.began > since} == {"https", "dns"}


def fetch(context: ssl.SSLContext) -> None:
    """Ask the edge for one item, its certificate verified."""
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


def question_from_a_fresh_port() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        question(sock)


def question(sock: socket.socket) -> None:
    """Ask the resolver for the edge's address."""
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
    """Return the seconds until *found* returns something true, and that; fail with *what* when it never does in *seconds*."""
    began = time.monotonic()
    while True:
        waited, last = time.monotonic() - began, ""  # before the look: what is true at the end counts
        try:
            if it := found():
                return waited, it
        except (OSError, ValueError, http.client.HTTPException, LabError) as error:
            last = f" ({error})"
        if waited > seconds:
            pytest.fail(f"{what}: not within {seconds:.0f} s{last}")
        time.sleep(0.2)  # polls: the lab, through its page and its commands


def is_well(host: str) -> bool:
    return statuses(console_state())[host] == "ok"


def all_well() -> bool:
    return all(status == "ok" for status in statuses(console_state()).values())


def alarm_of(host: str) -> dict[str, Any] | None:
    """Return the alarm that names *host*."""
    alarms = console_state()["alarms"]
    return next((alarm for alarm in alarms if host in alarm["subject"].replace(",", "").split()), None)


def state_without_router() -> dict[str, Any] | None:
    """Return the console's state if it says that the router is down."""
    state = console_state()
    return state if "The router is down" in state["verdict"]["text"] else None


@pytest.fixture(scope="module")
def load(root_pem: str, lab: DockerLab) -> Iterator[Load]:
    """Run the load over every test of this file, the lab being well."""
    wait_for("the lab is well before anybody is killed", 30, all_well)
    with Load(root_pem) as running:
        wait_for("the load is served", 10, lambda: running.served(0))
        yield running
    # Only what a failed test left dead has to be started again.
    for host in lab.status():
        if host.state == "exited" and host.name in {declared.name for declared in lab.topology.always}:
            lab.start(host.name)
    wait_for("the lab is well for the tests that follow", RECOVERED, all_well)


def test_without_the_router_the_console_says_so_and_recovers(load: Load, lab: DockerLab) -> None:
    lab.kill("wan")
    try:
        wait_for("the console misses wan", NOTICED, lambda: alarm_of("wan"))
        _, seen = wait_for("the console says that the router is down", NOTICED, state_without_router)
        assert [alarm["subject"] for alarm in seen["alarms"]] == ["wan"]
    finally:
        lab.start("wan")
    began = time.time()
    wait_for("all hosts are well once wan is back", RECOVERED, all_well)
    wait_for("requests are served once wan is back", RECOVERED, lambda: load.served(began))


def test_every_host_in_turn(load: Load, lab: DockerLab) -> None:
    hosts = {host.name for host in lab.topology.always}
    assert hosts == {*IN_TURN, "wan", "console"}
    began, report, dead, before = time.time(), [], {}, None
    for host in IN_TURN:
        killed = time.time()
        lab.kill(host)
        try:
            noticed, alarm = wait_for(f"the console names {host}", NOTICED, partial(alarm_of, host))
            if before is not None:
                wait_for(f"{before} is well again", RECOVERED, partial(is_well, before))
        finally:
            lab.start(host)
        dead[host] = (killed, time.time() + COMING_BACK)
        assert alarm["means"], f"the console does not say what the loss of {host} means"
        report.append(f"{host}: named after {noticed:.1f} s: {alarm['text']}")
        before = host
    wait_for("all hosts are well", RECOVERED, all_well)
    ended = time.time()
    wait_for("requests are served", RECOVERED, lambda: load.served(ended))
    print("\n".join(report))
    lost = [
        f"{outcome.kind} at {outcome.began:.1f}: {outcome.error}"
        for outcome in load.outcomes
        if outcome.error
        and outcome.began >= began  # the deaths of other tests are not ours
        and not any(
            killed - PATIENCE <= outcome.began <= until
            for host, (killed, until) in dead.items()
            if outcome.kind in COSTS.get(host, set())
        )
    ]
    assert lost == [], "\n".join(report)


def test_a_client_that_keeps_its_port_reaches_a_resolver_started_anew(load: Load, lab: DockerLab) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        question(sock)
        lab.kill("resolver")
        lab.start("resolver")
        began = time.time()
        wait_for("others are answered", RECOVERED, lambda: load.served(began))
        question(sock)


def test_a_console_that_was_killed_knows_everything_again(load: Load, lab: DockerLab) -> None:
    lab.kill("console")
    with pytest.raises(OSError):
        console_state()
    lab.start("console")
    wait_for("the console is back and sees everybody", RECOVERED, all_well)
    began = time.time()
    wait_for("requests are served", RECOVERED, lambda: load.served(began))


def test_a_certificate_that_the_ca_acknowledged_survives_its_death(shell: Shell, lab: DockerLab) -> None:
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
    # The account that `news` had with it is still good: it renews again.
    lab.call("news", "POST", "/admin/renew", timeout=30)
    assert lab.call("news", "GET", "/admin/certificate")["serial"] != serial
    assert shell.on("lab", "curl", "-sS", "--cacert", "/srv/trust/root.pem", "https://news.example.com/news").code == 0
