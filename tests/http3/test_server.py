"""Tests of `python -m http3` with our own client: round trips of handshakes, early data, and address changes."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("aioquic", reason="aioquic is an optional dependency of firstbyte")

from aioquic.quic.events import StreamDataReceived

from http3.server import MAX_TICKETS, Tickets
from scenarios.instruments import quic_client
from scenarios.instruments.connection import Address
from tests.peers import Papers

HOST = "quic.example.com"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Yield the address of a running server, and the root certificate that clients must trust."""
    papers = Papers(tmp_path_factory.mktemp("papers"))
    command = [sys.executable, "-m", "http3", "--listen", "127.0.0.1:0", "--cert", str(papers.pair(HOST))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            match = re.match(r"listening on 127.0.0.1:(\d+) \(quic\)", process.stdout.readline())
            assert match
            yield Address(HOST, "127.0.0.1", int(match[1])), papers.trust
        finally:
            process.terminate()
            assert process.wait(10) == 0


async def whoami(client):
    response = await client.get(HOST, "/whoami")
    return json.loads(bytes(response.body))


async def test_responses_have_the_length_that_was_asked_for(served):
    to, trust = served
    async with quic_client.connect(to, trust) as client:
        responses = await quic_client.gather(client.ask(HOST, [f"/bytes/{n}" for n in (0, 1000, 100_000)]))
    assert [len(each.body) for each in responses] == [0, 1000, 100_000]
    assert all(each.first_byte_ms > 0 for each in responses)


@pytest.mark.parametrize("path", ["/nothing", "/bytes/999999999", "/bytes/x"])
async def test_other_paths_are_refused(served, path):
    to, trust = served
    async with quic_client.connect(to, trust) as client:
        with pytest.raises(quic_client.QuicError, match="expected status 200, got 404"):
            await client.get(HOST, path)


async def test_a_resumed_connection_sends_its_request_early_and_a_ticket_works_once(served):
    to, trust = served
    tickets: list[Any] = []
    async with quic_client.connect(to, trust, tickets) as client:
        assert not (await whoami(client))["early_data"]
        await client.ping()
    (used,) = tickets
    async with quic_client.connect(to, trust, tickets, early=True) as client:
        assert (await whoami(client))["early_data"]
        assert client.early
    async with quic_client.connect(to, trust, [used], early=True) as client:
        await client.ping()
        assert not client.early


async def test_a_connection_survives_a_change_of_address(served):
    to, trust = served
    async with quic_client.connect(to, trust) as client:
        before = (await whoami(client))["peer"]
        await client.move()
        after = (await whoami(client))["peer"]
        await client.ping()
    assert before != after


async def test_no_datagram_has_data_of_two_responses(served, monkeypatch):
    to, trust = served
    received: list[set[int]] = []
    async with quic_client.connect(to, trust) as client:
        datagram, event = client.datagram_received, client.quic_event_received

        def record(each):
            if isinstance(each, StreamDataReceived) and each.stream_id % 4 == 0:  # a response
                received[-1].add(each.stream_id)
            event(each)

        def begin(*words):
            received.append(set())
            datagram(*words)

        monkeypatch.setattr(client, "datagram_received", begin)
        monkeypatch.setattr(client, "quic_event_received", record)
        await quic_client.gather(client.ask(HOST, ["/bytes/1000"] * 6))
    assert sorted(len(streams) for streams in received if streams) == [1] * 6


async def test_a_server_whose_certificate_is_for_another_name_is_refused(served):
    to, trust = served
    with pytest.raises(OSError):
        async with quic_client.connect(Address("other.example.com", to.address, to.port), trust):
            pass


def test_tickets_are_kept_up_to_a_limit():
    tickets = Tickets()
    for number in range(MAX_TICKETS + 1):
        made: Any = SimpleNamespace(ticket=str(number).encode())
        tickets.add(made)
    assert tickets.take(b"0") is None
    assert tickets.take(b"1") is not None
    assert tickets.take(b"1") is None
