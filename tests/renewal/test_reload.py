"""Tests for the hot reload of certificates into running servers and clients, with and without injected faults."""

import asyncio

import pytest

from renewal import PairError, Reload
from renewal.corruption import CORRUPTIONS
from tests.acme_server.conftest import Lab
from tests.renewal.conftest import agent_for, one_request, serve
from tests.waiting import until


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
        await until(lambda: seen == issued)
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
    reported: list[Reload] = []
    agent.credentials.on_change(reported.append)
    await agent.renew()
    agent.telemetry.faults.switch_on("naive_reload", {"down_ms": 250})
    await agent.renew()
    assert reported == [Reload(), Reload(restart=True, down_s=0.25)]


@pytest.mark.parametrize("kind", CORRUPTIONS)
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
    if kind == "key-mismatch":  # ssl has loaded the certificate but not its key, so handshakes fail
        with pytest.raises((OSError, AssertionError)):
            await one_request(port, lab.context())
    agent.telemetry.faults.clear()
    assert await one_request(port, lab.context()) == first
    second = await agent.renew()
    assert await one_request(port, lab.context()) == second
    assert agent.telemetry.health.as_dict()["status"] == "ok"
    server.close()


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
