"""The agent against the lab's own CA, and the hot reload under load."""

import asyncio
import contextlib
import random
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from renewal import Agent, PairError, Settings, renewal_time, retry_delay
from renewal.credentials import new_pair_pem
from telemetry import Telemetry
from tests.acme_server.conftest import Lab


def agent_for(lab: Lab, folder: str = "tls", *names: str) -> Agent:
    (lab.folder / folder).mkdir(exist_ok=True)
    settings = Settings(lab.directory, lab.folder / folder, lab.trust, names or ("www.example.com",))
    agent = Agent(settings, Telemetry("test"), lab.stub)

    def put(token: str, text: str | None) -> None:
        real_put(token, text)
        lab.answers.pop(token, None) if text is None else lab.answers.update({token: text})

    real_put = agent.challenges.put
    agent.challenges.put = put  # type: ignore[method-assign, assignment] # the lab's web server stands for the service's own port 80
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
    agent.telemetry.clock.offset = 45.0
    agent._check_health()
    assert not agent.telemetry.health.ok


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


async def test_naive_reload_tells_the_service_to_cut(lab: Lab) -> None:
    agent = agent_for(lab)
    await agent.obtain()
    told: list[bool] = []
    agent.credentials.on_change(told.append)
    await agent.renew()
    agent.telemetry.faults.switch_on("naive_reload", {})
    await agent.renew()
    assert told == [False, True]


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


@given(st.integers(1, 50), st.floats(1, 400 * 86400), st.integers(0, 2**32))
def test_a_ca_in_trouble_is_never_asked_in_a_hot_loop(failures: int, lifetime: float, seed: int) -> None:
    assert 1.0 <= retry_delay(failures, lifetime, random.Random(seed)) <= 1.25 * 86400 * max(1, lifetime / (90 * 86400))
