"""Tests for revocation checks in a service: validation of CRLs, and rejection of revoked clients."""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from acme_server import wrong_crl
from authority import Issuer, Revoked, Urls, issue_crl, issue_intermediate, issue_leaf, issue_root, new_key
from origin.application import Options, Parts, build, request_counter
from renewal.revocation import ListSource, RevocationError, Revocations, list_url
from telemetry import Telemetry
from tests.acme_server.conftest import Lab, site
from tests.mutations import mutated
from tests.renewal.conftest import agent_for
from tests.waiting import until

NOW = time.time()
ROOT_KEY, KEY, OTHER_KEY = new_key(), new_key(), new_key()
ROOT = issue_root(ROOT_KEY, "root", NOW)


def issuer(key, name: str = "issuing") -> Issuer:
    return Issuer(issue_intermediate(Issuer(ROOT, ROOT_KEY, ()), key.public_key(), name, NOW), key, ())


ISSUER = issuer(KEY)


def crl(number: int, *serials: int, by: Issuer = ISSUER, lifetime: float = 600.0) -> bytes:
    entries = [Revoked(each, NOW - 9, 1) for each in serials]
    return issue_crl(by, entries, number, NOW, lifetime, 60.0).public_bytes(Encoding.DER)


#: A valid CRL; a test changes its bytes.
LIST = crl(7, 5, 6)


def test_each_newer_list_replaces_the_one_before() -> None:
    revocations = Revocations()
    for number, serials in ((1, (5,)), (2, (5, 6)), (2, (5, 6)), (9, ())):
        revocations.take(crl(number, *serials), ISSUER.certificate, NOW)
        assert [each for each in (5, 6, 7) if each in revocations] == list(serials)
    assert repr(revocations) == "<Revocations number=9 entries=0>"
    assert revocations.next_update == int(NOW + 600)


@pytest.mark.parametrize(
    ("der", "reason"),
    [
        (crl(6), "expected list 7 or a later one, got 6"),
        (crl(8, by=issuer(OTHER_KEY)), "expected a list signed by CN=issuing"),
        (crl(8, by=issuer(KEY, "another")), "expected a list signed by CN=issuing"),
        (crl(8, lifetime=-1.0), "expected a list that is in date"),
        (crl(8)[:-3], "expected a revocation list with a number, in DER"),
        (b"nonsense", "expected a revocation list with a number, in DER"),
    ],
    ids=["older", "forged", "another-name", "stale", "truncated", "nonsense"],
)
def test_a_list_that_must_not_be_used_leaves_the_one_before(der: bytes, reason: str) -> None:
    revocations = Revocations()
    revocations.take(crl(7, 5), ISSUER.certificate, NOW)
    with pytest.raises(RevocationError, match=reason):
        revocations.take(der, ISSUER.certificate, NOW)
    assert (revocations.number, 5 in revocations) == (7, True)


@pytest.mark.parametrize(
    ("after", "current"),
    [(0.0, True), (330.0, True), (340.0, False), (600.0, False)],
    ids=["new", "half", "low", "end"],
)
def test_the_alarm_precedes_the_end_of_a_list(after: float, current: bool) -> None:
    revocations = Revocations()
    assert not revocations.current(NOW)
    revocations.take(crl(1, 5), ISSUER.certificate, NOW)
    assert revocations.current(NOW + after) is current


@given(st.one_of(st.binary(max_size=300), mutated(LIST)))
def test_no_bytes_break_the_reading_of_a_list(der: bytes) -> None:
    if der != LIST:
        with pytest.raises(RevocationError):
            Revocations().take(der, ISSUER.certificate, NOW)


@pytest.mark.parametrize("url", ["ldap://ca.example.com/crl", None], ids=["ldap", "none"])
def test_only_lists_over_http_are_fetched(url: str | None) -> None:
    urls = None if url is None else Urls(url, "http://ca.example.com/issuer.cer")
    leaf = issue_leaf(ISSUER, KEY.public_key(), ["www.example.com"], NOW, 60.0, urls=urls)
    with pytest.raises(RevocationError, match="names a revocation list over HTTP"):
        list_url(leaf)


async def test_a_list_is_transferred_only_when_it_has_changed(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    leaf, source, revocations = agent.credentials.pair.leaf, ListSource(lab.stub), Revocations()
    issuing = x509.load_pem_x509_certificates(agent.credentials.pair.pem)[1]
    der = await source.fetch(leaf)
    assert der is not None
    revocations.take(der, issuing, time.time())
    assert await source.fetch(leaf) is None
    revoke(lab, agent.credentials.serial)
    der = await source.fetch(leaf)
    assert der is not None
    revocations.take(der, issuing, time.time())
    assert leaf.serial_number in revocations


def revoke(lab: Lab, serial: str) -> None:
    lab.server.store.revoke(serial, time.time(), 1)
    lab.server.published.changed(serial)
    lab.server.published.renew_if_due(time.time())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("renewal.revocation.INTERVAL", 0.05)


@pytest.mark.usefixtures("quick")
async def test_a_revoked_client_is_refused_on_new_pooled_and_resumed_connections(lab: Lab) -> None:
    server, client, other = (agent_for(lab, name, f"{name}.example.com") for name in ("origin", "edge", "edge-far"))
    for each in (server, client, other):
        await each.obtain()
    server.check_revocations()
    assert server.revocations is not None
    server.start()
    parts = Parts(revoked=server.revocations)
    application = build(Options("o", "news"), request_counter(Telemetry("origin")), mutual=True, parts=parts)
    context = server.credentials.server_context(lab.trust)
    try:
        async with site(application, ssl_context=context) as port:
            address = f"https://127.0.0.1:{port}/whoami"

            async def ask(http: aiohttp.ClientSession) -> int:
                async with http.get(address, server_hostname="origin.example.com") as response:
                    return response.status

            def session(of: ssl.SSLContext) -> aiohttp.ClientSession:
                return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=of, limit=1))

            mine, others = client.credentials.client_context(), other.credentials.client_context()
            async with session(mine) as pooled, session(others) as good:
                assert [await ask(pooled), await ask(good)] == [200, 200]
                await until(lambda: server.revocations.number)  # type: ignore[union-attr]  # `revocations` is set before the requests
                revoke(lab, client.credentials.serial)
                await until(lambda: int(client.credentials.serial, 16) in server.revocations)  # type: ignore[operator]  # `revocations` is set before the requests
                assert await ask(pooled) == 403
                async with session(mine) as new:
                    assert await ask(new) == 403
                assert await resumed(port, mine) == [b"HTTP/1.1 403 Forbidden"] * 2
                assert await ask(good) == 200
                await client.renew()
                async with session(client.credentials.client_context()) as renewed:
                    assert await ask(renewed) == 200
    finally:
        await server.stop()


async def resumed(port: int, context: ssl.SSLContext) -> list[bytes]:
    """Send a request on a new connection, and on a connection that resumes its TLS session; return the status lines."""

    def run() -> list[bytes]:
        lines, session = [], None
        for _ in range(2):
            raw = socket.create_connection(("127.0.0.1", port), timeout=5)
            with context.wrap_socket(raw, server_hostname="origin.example.com", session=session) as tls:
                tls.sendall(b"GET /whoami HTTP/1.1\r\nHost: x\r\n\r\n")
                lines.append(tls.recv(64).partition(b"\r\n")[0])
                assert tls.session_reused == (session is not None)
                session = tls.session
        return lines

    return await asyncio.to_thread(run)


@pytest.mark.usefixtures("quick")
async def test_a_list_that_cannot_be_fetched_is_an_alarm_and_refuses_no_one(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    agent.check_revocations()
    agent.start()
    checks: Callable[[], dict] = lambda: agent.telemetry.health.as_dict()["checks"]["revocation"]  # noqa: E731 - a one-line function that is used only here
    try:
        await until(lambda: agent.revocations is not None and agent.revocations.number)
        assert checks()["ok"]
        lab.server.telemetry.faults.switch_on("wrong_crl", {"kind": "unavailable"})
        agent.telemetry.clock.offset = 0.7 * 3600.0
        await until(lambda: not checks()["ok"])
        assert 1 not in (agent.revocations or {})
    finally:
        await agent.stop()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", wrong_crl.KINDS)
async def test_a_defective_list_leaves_the_one_before_and_is_reported(lab: Lab, kind: str) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    revoke(lab, "1")
    revocations = agent.check_revocations()
    agent.start()
    detail: Callable[[], str] = lambda: str(agent.telemetry.health.as_dict()["checks"]["revocation"]["detail"])  # noqa: E731 - a one-line function that is used only here
    try:
        await until(lambda: revocations.number)
        before = (revocations.number, len(revocations))
        lab.server.telemetry.faults.switch_on("wrong_crl", {"kind": kind})
        await until(lambda: ";" in detail())  # a semicolon separates the error from the remaining time
        assert (revocations.number, len(revocations)) == before
        lab.server.telemetry.faults.switch_off("wrong_crl")
        await until(lambda: ";" not in detail())
    finally:
        await agent.stop()


@pytest.mark.usefixtures("quick")
async def test_a_service_renews_as_soon_as_its_own_certificate_is_on_the_list(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    first, revocations = agent.credentials.serial, agent.check_revocations()
    reported: list[bool] = []
    agent.on_revocation = lambda: reported.append(int(first, 16) in revocations)
    agent.start()
    try:
        await until(lambda: revocations.number)
        revoke(lab, first)
        await until(lambda: agent.credentials.serial != first, 3)
        assert (agent.renewals, agent.failures) == (2, 0)
        assert reported == [True]
    finally:
        await agent.stop()


@pytest.mark.usefixtures("quick")
async def test_the_fault_crl_unchecked_uses_a_list_of_another_issuer_and_the_report_shows_it(lab: Lab) -> None:
    agent, other = (agent_for(lab, name, f"{name}.example.com") for name in ("origin", "edge"))
    for each in (agent, other):
        await each.obtain()
    revoke(lab, other.credentials.serial)
    revocations, faults = agent.check_revocations(), agent.telemetry.faults
    faults.switch_on("crl_every", {"seconds": 0.1})
    agent.start()
    try:
        await until(lambda: revocations.number)
        report = agent.describe()["crl"]
        assert (report["number"], report["entries"], report["error"]) == (revocations.number, 1, "")
        assert report["next_update"] == revocations.next_update > report["this_update"]
        lab.server.telemetry.faults.switch_on("wrong_crl", {"kind": "wrong-issuer"})
        await until(lambda: "signed by" in agent.describe()["crl"]["error"])
        assert len(revocations) == 1
        faults.switch_on("crl_unchecked", {})
        await until(lambda: not revocations)
        assert agent.describe()["crl"]["error"] == ""
    finally:
        await agent.stop()
