"""The agent against the lab's own CA, and the hot reload under load."""

import argparse
import asyncio
import contextlib
import json
import random
import ssl
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from authority import Issuer, issue_leaf, issue_root, new_key
from renewal import AcmeError, Agent, PairError, Reload, Settings, further, renewal_time, retry_delay
from renewal.client import Suggestion, retry_after
from renewal.material import SPOILT, new_pair_pem
from telemetry import AdminError, Request, Telemetry
from tests.acme_server.conftest import Lab
from tests.peers import until


def agent_for(lab: Lab, folder: str = "tls", *names: str) -> Agent:
    (lab.folder / folder).mkdir(exist_ok=True)
    settings = Settings(lab.directory, lab.folder / folder, lab.trust, names or ("www.example.com",))
    agent = Agent(settings, Telemetry("test"), lab.stub)

    def put(token: str, text: str | None) -> None:
        real_put(token, text)
        lab.answers.pop(token, None) if text is None else lab.answers.update({token: text})

    real_put = agent.challenges.put
    agent.challenges.put = put  # type: ignore[method-assign, assignment]  # the lab's web server stands for the service's own port 80
    return agent


async def test_a_pair_is_obtained_kept_and_found_again(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    serial = agent.credentials.serial
    assert agent.credentials.file.stat().st_mode & 0o777 == 0o600
    again = agent_for(lab)
    await again.obtain()
    assert again.credentials.serial == serial
    assert again.renewals == 0
    assert agent.telemetry.health.ok
    assert agent.describe()["seconds_left"] > 50


async def test_a_service_that_is_stopped_before_it_has_a_certificate_ends(lab: Lab) -> None:
    agent = agent_for(lab)
    agent.settings = replace(agent.settings, directory="https://127.0.0.1:1/directory")
    enrolling = asyncio.create_task(agent.enrol())
    await until(lambda: agent.failures)
    assert agent.telemetry.health.as_dict()["checks"]["certificate"]["detail"].startswith("none yet")
    agent.telemetry.stop()
    assert not await enrolling
    assert await agent_for(lab, "other").enrol()


async def test_renewal_happens_at_the_scheduled_point_of_life(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    first = agent.credentials.serial
    agent.start()
    try:
        await asyncio.sleep(0.2)
        assert agent.renewals == 1
        agent.telemetry.clock.offset = lab.server.telemetry.clock.offset = 32.0  # of 60 s: past half of life
        async with asyncio.timeout(5):
            while agent.renewals == 1:  # noqa: ASYNC110 - what an operator sees is polled, too
                await asyncio.sleep(0.02)
        assert agent.credentials.serial != first
    finally:
        await agent.stop()


async def test_a_failed_renewal_leaves_the_old_pair_and_raises_the_alarm_in_time(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    serial = agent.credentials.serial
    lab.server.telemetry.faults.switch_on("acme_503", {"retry_after": 7})
    with pytest.raises(Exception, match="503"):
        await agent.renew()
    assert agent.credentials.serial == serial
    assert agent.describe()["next_renewal"] >= agent.telemetry.clock.time() + 6.9
    assert agent.telemetry.health.ok
    agent.telemetry.clock.offset = 35.0  # of 60 s: half of life and the grace are over
    agent._check_health()
    assert "renewal was due" in agent.telemetry.health.as_dict()["checks"]["certificate"]["detail"]
    agent.telemetry.clock.offset = 61.0
    agent._check_health()
    assert "expired" in agent.telemetry.health.as_dict()["checks"]["certificate"]["detail"]
    agent.telemetry.faults.switch_on("alarm_off", {})
    agent._check_health()
    assert agent.telemetry.health.ok


def chain_of(agent: Agent) -> str:
    return agent.credentials.file.read_text().partition("-----END PRIVATE KEY-----\n")[2]


@pytest.mark.parametrize("case", ["other-key", "nonsense", "no-chain", "other-name", "expired", "truncated"])
async def test_material_that_is_not_good_changes_nothing(lab: Lab, case: str) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    good, serial, now = agent.credentials.file.read_bytes(), agent.credentials.serial, agent.telemetry.clock.time()
    pem, names = good, ["www.example.com"]
    if case == "other-key":
        pem = new_pair_pem(ec.generate_private_key(ec.SECP256R1()), chain_of(agent))
    elif case == "nonsense":
        pem = b"nonsense"
    elif case == "no-chain":
        pem = good[: good.index(b"-----END CERTIFICATE-----") + 26]
    elif case == "other-name":
        names = ["far.example.com"]
    elif case == "expired":
        now += 3600
    else:
        pem = good[:-200]
    with pytest.raises(PairError):
        agent.credentials.replace(pem, names, now)
    assert agent.credentials.file.read_bytes() == good
    assert agent.credentials.serial == serial


async def serve(agent: Agent, client_ca: Path | None = None) -> tuple[asyncio.Server, set[asyncio.StreamWriter]]:
    writers: set[asyncio.StreamWriter] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        except OSError:
            pass
        finally:
            writers.discard(writer)
            writer.close()

    return await asyncio.start_server(echo, "127.0.0.1", 0, ssl=agent.credentials.server_context(client_ca)), writers


async def one_request(port: int, context: ssl.SSLContext) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="www.example.com")
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    try:
        writer.write(b"ping\n")
        assert await reader.readline() == b"ping\n"
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return f"{x509.load_der_x509_certificate(certificate).serial_number:x}"


async def test_hot_reload_under_load_loses_nothing_and_serves_every_serial(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    server, _ = await serve(agent)
    port, context = server.sockets[0].getsockname()[1], lab.context()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=lab.context(), server_hostname="www.example.com"
    )
    issued, seen, stop = {agent.credentials.serial}, set(), asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            seen.add(await one_request(port, context))

    workers = [asyncio.create_task(load()) for _ in range(4)]
    for _ in range(3):
        issued.add(await agent.renew())
        await asyncio.sleep(0.05)
    stop.set()
    await asyncio.gather(*workers)
    assert seen == issued
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_a_naive_restart_tells_the_service_to_be_deaf_for_a_while(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    told: list[Reload] = []
    agent.credentials.on_change(told.append)
    await agent.renew()
    agent.telemetry.faults.switch_on("naive_reload", {"down_ms": 250})
    await agent.renew()
    assert told == [Reload(), Reload(restart=True, down_s=0.25)]


@pytest.mark.parametrize("kind", SPOILT)
async def test_broken_material_breaks_a_naive_server_and_no_other(lab: Lab, kind: str) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    first = agent.credentials.serial
    server, _ = await serve(agent)
    port = server.sockets[0].getsockname()[1]
    agent.telemetry.faults.switch_on("broken_material", {"kind": kind})
    for failures in (1, 2):
        with pytest.raises(PairError):
            await agent.renew()
        assert agent.failures == failures
        assert await one_request(port, lab.context()) == first
    assert "2 failures in a row" in agent.telemetry.health.as_dict()["checks"]["renewal"]["detail"]
    assert not agent.telemetry.health.ok
    agent.telemetry.faults.switch_on("naive_reload", {"how": "live"})
    with pytest.raises(PairError, match="live context"):
        await agent.renew()
    if kind == "key-mismatch":  # what FACTS says of Python's ssl: the certificate is in, its key is not
        with pytest.raises((OSError, AssertionError)):
            await one_request(port, lab.context())
    agent.telemetry.faults.clear()
    assert await one_request(port, lab.context()) == first
    second = await agent.renew()
    assert await one_request(port, lab.context()) == second
    assert agent.telemetry.health.as_dict()["status"] == "ok"
    server.close()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("wrong-san", "expected a certificate for www.example.com, got one for wrong.example.com"),
        ("expired", "expected a certificate that is valid at"),
        ("not-yet-valid", "expected a certificate that is valid at"),
        ("no-chain", "expected the chain after the certificate"),
    ],
)
async def test_what_a_ca_gets_wrong_is_refused(lab: Lab, kind: str, reason: str) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    first = agent.credentials.serial
    lab.server.telemetry.faults.switch_on("misissue", {"kind": kind})
    with pytest.raises(PairError, match=reason):
        await agent.renew()
    assert agent.credentials.serial == first
    assert lab.server.telemetry.faults.as_dict()["misissue"]["hits"] == 1
    lab.server.telemetry.faults.clear()
    assert await agent.renew() != first


async def test_a_chain_that_leads_elsewhere_is_refused(lab: Lab, tmp_path: Path) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    key, now = new_key(), agent.telemetry.clock.time()
    root = issue_root(key, "a stranger", now)
    leaf_key = new_key()
    leaf = issue_leaf(Issuer(root, key, (root,)), leaf_key.public_key(), ["www.example.com"], now, 60.0)
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in (leaf, root)).decode()
    with pytest.raises(PairError, match="leads to our trust anchor"):
        agent.credentials.replace(new_pair_pem(leaf_key, chain), ["www.example.com"], now)


@pytest.mark.parametrize(
    ("offset", "ok"),
    [(0.0, True), (0.9, True), (2.5, False), (-2.5, False), (3600.0, False)],
    ids=["right", "within", "ahead", "behind", "an-hour"],
)
async def test_a_clock_that_differs_from_the_cas_is_an_alarm(lab: Lab, offset: float, ok: bool) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    agent.telemetry.clock.offset = offset
    with contextlib.suppress(PairError):
        await agent.renew()
    agent._check_health()
    assert agent.telemetry.health.as_dict()["checks"]["clock"]["ok"] is ok
    skew = agent.skew()
    assert skew is not None
    assert abs(skew - offset) < 0.75


@pytest.mark.parametrize("offset", [56.0, 59.0, 3600.0, -3600.0], ids=["0.93", "0.98", "60-lives", "minus-60-lives"])
async def test_a_wrong_clock_never_renews_in_a_loop(lab: Lab, offset: float) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    agent.telemetry.clock.offset = offset
    before = agent.renewals + agent.failures
    agent.start()
    try:
        await asyncio.sleep(0.9)
        assert agent.renewals + agent.failures - before <= 1
        assert agent.credentials.ready
    finally:
        await agent.stop()


@pytest.mark.parametrize(
    ("start", "end", "at"),
    [(10.0, 12.0, (10.0, 12.0)), (-5.0, -4.0, (-5.0, -4.0)), (50.0, 55.0, (28.0, 32.5))],
    ids=["earlier", "at-once", "later-than-our-own-rule"],
)
async def test_the_ca_may_ask_for_an_earlier_renewal(
    lab: Lab, start: float, end: float, at: tuple[float, float]
) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    issued = agent._issued
    for _ in range(20):  # the same suggestion again and again is one draw
        agent.suggest(Suggestion(issued + start, issued + end, None), agent.credentials.serial)
        assert at[0] <= agent._due - issued <= at[1]
    assert len({agent._due for _ in range(3)}) == 1


async def test_an_answer_about_a_certificate_that_was_replaced_meanwhile_changes_nothing(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    old, issued = agent.credentials.serial, agent._issued
    await agent.renew()
    due = agent._due
    agent.suggest(Suggestion(issued - 5.0, issued - 4.0, None), old)
    assert (agent._due, agent._next) == (due, due)


async def test_a_revoked_certificate_is_renewed_at_once(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    first = agent.credentials.serial
    lab.server.store.revoke(first, agent.telemetry.clock.time(), 1)
    agent.start()
    try:
        async with asyncio.timeout(5):
            while agent.credentials.serial == first:  # noqa: ASYNC110 - what an operator sees is polled, too
                await asyncio.sleep(0.02)
    finally:
        await agent.stop()
    assert agent.failures == 0


async def test_renewal_information_that_fails_blocks_nothing(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    client = agent._acme_client()
    client._directory["renewalInfo"] = lab.directory  # answers, but not with a window
    with pytest.raises(AcmeError, match="malformed"):
        await client.suggestion(agent.credentials.pair.leaf)
    due = agent._due
    agent.start()
    await asyncio.sleep(0.1)
    await agent.stop()
    assert (agent._due, agent.failures) == (due, 0)
    assert await agent.renew()


async def test_answers_of_another_shape_are_the_cas_fault(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    client = agent._acme_client()
    client._directory = {"newNonce": client._directory["newNonce"]}
    with pytest.raises(AcmeError, match="malformed: KeyError"):
        await agent.renew()
    assert agent.failures == 1
    await agent.renew()  # the directory is read anew


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("7", 7.0), ("soon", None), ("-1", None), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0)],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_retry_after_as_a_date() -> None:
    later = retry_after(formatdate(time.time() + 100, usegmt=True))
    assert later is not None
    assert 98 <= later <= 100


async def test_mutual_tls_needs_a_certificate_of_the_labs_root(lab: Lab) -> None:
    agent, peer = agent_for(lab), agent_for(lab, "peer", "far.example.com")
    await agent.obtain()
    await peer.obtain()
    server, _ = await serve(agent, lab.trust)
    port = server.sockets[0].getsockname()[1]
    assert await one_request(port, peer.credentials.client_context()) == agent.credentials.serial
    with pytest.raises((OSError, AssertionError)):
        await one_request(port, lab.context())
    before = peer.credentials.client_context()
    await peer.renew()
    assert peer.credentials.client_context() is not before
    server.close()


@given(st.floats(1, 400 * 86400), st.integers(0, 2**32))
def test_renewal_is_due_well_inside_life(lifetime: float, seed: int) -> None:
    at = renewal_time(1e9, 1e9 + lifetime, random.Random(seed))
    assert 0.47 * lifetime <= at - 1e9 <= 0.69 * lifetime


@pytest.mark.parametrize(
    ("lifetime", "scale", "share"),
    [(12.0, 1.0, 1 / 2), (12.0, 47 * 86400 / 12, 2 / 3), (12.0, 7 * 86400 / 12, 1 / 2), (47 * 86400.0, 1.0, 2 / 3)],
    ids=["12-s", "12-s-for-47-d", "12-s-for-7-d", "47-d"],
)
def test_rules_of_days_look_at_the_nominal_lifetime(lifetime: float, scale: float, share: float) -> None:
    rng = random.Random(1)
    times = [renewal_time(0.0, lifetime, rng, None, scale) / lifetime for _ in range(200)]
    assert share - 0.02 <= min(times) < max(times) <= share + 0.02
    assert max(times) - min(times) > 0.03


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "at most"),
        ({"when": 1}, "at most"),
        ({"scale": 0}, "scale"),
        ({"scale": True}, "scale"),
        ({"renew_at": 1.0}, "renew_at"),
        ({"renew_at": "half"}, "renew_at"),
        ({"seed": 1.5}, "seed"),
    ],
)
async def test_a_schedule_that_makes_no_sense_is_refused(lab: Lab, body: object, message: str) -> None:
    agent = agent_for(lab)
    with pytest.raises(AdminError, match=message):
        agent._set_schedule(Request("PUT", "/admin/schedule", body=json.dumps(body).encode()))
    assert agent._show_schedule()["scale"] == 1.0


async def test_a_schedule_set_by_a_drill_is_seeded_and_undone(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    body = json.dumps({"scale": 86400, "seed": 7}).encode()
    due = [agent._set_schedule(Request("PUT", "/admin/schedule", body=body))["due"] for _ in range(2)]
    assert due[0] == due[1]
    assert 0.6 < (due[0] - agent._issued) / (agent.credentials.not_after - agent._issued) < 0.7
    assert agent.telemetry._unusual() == ["schedule x86400"]
    reset = agent._reset_schedule(Request("DELETE", "/admin/schedule"))
    assert (reset["scale"], reset["renew_at"]) == (1.0, None)
    assert agent.telemetry._unusual() == []
    assert reset["due"] < due[0]


@given(st.integers(1, 50), st.floats(1, 400 * 86400), st.integers(0, 2**32))
def test_a_ca_in_trouble_is_never_asked_in_a_hot_loop(failures: int, lifetime: float, seed: int) -> None:
    assert 1.0 <= retry_delay(failures, lifetime, random.Random(seed)) <= 1.25 * 86400 * max(1, lifetime / (90 * 86400))


def shown(context: ssl.SSLContext, trust: ssl.SSLContext, name: str) -> x509.Certificate:
    """Return the certificate that a server with *context* shows to a client that asks for *name*."""
    return x509.load_der_x509_certificate(handshaken(context, trust, name)[0])


def handshaken(context: ssl.SSLContext, trust: ssl.SSLContext, name: str) -> tuple[bytes, int]:
    """Return the leaf (DER), and octets of the server's flight."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trust.wrap_bio(to_client, to_server, server_hostname=name)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        server.do_handshake()
    flight = to_client.pending
    client.do_handshake()
    return client.getpeercert(binary_form=True) or b"", flight


async def test_a_further_certificate_is_for_who_asks_for_its_name(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    context, trust = agent.credentials.server_context(), lab.context()
    other = agent.beside("far.example.com", "rsa-2048")
    with pytest.raises(ssl.SSLCertVerificationError):  # it has none yet: who asks gets the first
        shown(context, trust, "far.example.com")
    await other.obtain()
    assert isinstance(shown(context, trust, "far.example.com").public_key(), rsa.RSAPublicKey)
    assert isinstance(shown(context, trust, "www.example.com").public_key(), ec.EllipticCurvePublicKey)
    assert agent.describe()["further"] == ["far.example.com"]
    assert other.credentials.file.parent == agent.settings.tls_dir / "far.example.com"


async def test_a_further_certificate_renews_and_alarms_on_its_own(lab: Lab) -> None:
    agent = agent_for(lab)
    other = agent.beside("far.example.com", "rsa-2048")
    await agent.obtain()
    await other.obtain()
    first = agent.credentials.serial
    before = other.credentials.serial
    await other.renew()
    assert (agent.credentials.serial, other.credentials.serial != before) == (first, True)
    lab.server.telemetry.faults.switch_on("acme_503", {})
    for _ in range(2):
        with pytest.raises(AcmeError, match="503"):
            await other.renew()
    checks = agent.telemetry.health.as_dict()["checks"]
    assert (checks["renewal"]["ok"], checks["renewal far.example.com"]["ok"]) == (True, False)
    assert (agent.describe()["alarms"], len(other.describe()["alarms"])) == ([], 1)


async def test_a_long_chain_goes_to_whom_it_is_meant_for_and_is_believed_all_the_same(lab: Lab) -> None:
    agent = agent_for(lab, "tls", "www.example.com", "far.example.com")
    await agent.obtain()
    context, trust = agent.credentials.server_context(), lab.context()
    _, usual = handshaken(context, trust, "www.example.com")
    agent.telemetry.faults.switch_on("long_chain", {"octets": 20_000, "sni": "far.example.com"})
    assert handshaken(context, trust, "www.example.com")[1] == pytest.approx(usual, abs=4)
    assert 20_000 < handshaken(context, trust, "far.example.com")[1] - usual < 20_500
    agent.telemetry.faults.clear()
    assert handshaken(context, trust, "far.example.com")[1] == pytest.approx(usual, abs=4)


@pytest.mark.parametrize("text", ["", "rsa.example.com", "=rsa-2048", "rsa.example.com=dsa"])
def test_a_further_certificate_needs_a_name_and_a_kind_of_key(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=KIND"):
        further(text)
