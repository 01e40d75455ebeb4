"""Tests for admission control: the connection limit, eviction, and rejection of further clients."""

import asyncio
import contextlib
import json
import resource
import socket
from dataclasses import dataclass

import pytest

from edge.__main__ import main
from edge.admission import EVICTED_AT_ONCE, QUIET, SEARCH_EVERY, Admission, Admit, Reject, Reset
from edge.proxy import Proxy
from tests.edge.conftest import GET, Bench, parts, plain, talk, until_idle
from tests.peers import OK, replying
from tests.waiting import until

KEPT = GET.replace(b"Connection: close\r\n", b"")


@dataclass(frozen=True, slots=True)
class Candidate:
    """Connection that has been idle since the given time in seconds; None means busy."""

    quiet_since: float | None


def full(limit: int = 2, rejected: int = 1) -> Admission:
    admission = Admission(limit, rejected)
    for _ in range(limit):
        assert admission.decide((), 0.0) == Admit()
    return admission


@pytest.mark.parametrize(
    ("candidates", "evicted"),
    [
        pytest.param([3.0, 1.0, 2.0], [1.0, 2.0, 3.0], id="longest-quiet-first"),
        pytest.param([None, 2.0], [2.0], id="busy-stays"),
        pytest.param([10.0 - QUIET, 10.1 - QUIET], [10.0 - QUIET], id="quiet-for-a-moment-stays"),
        pytest.param([float(i) / 100 for i in range(200)],
                     [float(i) / 100 for i in range(EVICTED_AT_ONCE)], id="some-at-a-time"),
    ],
)  # fmt: skip
def test_idle_connections_are_evicted(candidates: list[float | None], evicted: list[float]) -> None:
    decision = full().decide([Candidate(since) for since in candidates], 10.0)
    assert isinstance(decision, Admit)
    assert [each.quiet_since for each in decision.evict] == evicted


def test_beyond_the_limit_some_are_rejected_and_the_rest_are_reset() -> None:
    admission = full(limit=2, rejected=1)
    busy = [Candidate(None), Candidate(None)]
    assert admission.decide(busy, 1.0) == Reject()
    assert admission.decide(busy, 1.0) == Reset()
    assert repr(admission) == "<Admission served=2 of 2 rejected=1>"
    admission.left(rejected=True)
    assert admission.decide(busy, 1.0) == Reject()
    admission.left(rejected=False)
    assert admission.decide(busy, 1.0) == Admit()


def test_a_flood_does_not_make_every_connection_a_search() -> None:
    admission, quiet = full(), [Candidate(0.0)]
    assert admission.decide([Candidate(None)], 10.0) == Reject()
    assert admission.decide(quiet, 10.0 + SEARCH_EVERY / 2) == Reset()
    assert admission.decide(quiet, 10.0 + SEARCH_EVERY) == Admit((quiet[0],))


def count(proxy: Proxy, name: str) -> list[str]:
    return [line for line in proxy.telemetry.metrics.render().splitlines() if line.startswith(f"firstbyte_edge_{name}")]


async def knock(port: int) -> None:
    """Connect and read one byte; either step may fail with a reset."""
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_recv(client, 1)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_client_beyond_the_limit_hears_why_and_the_others_are_served(bench: Bench, *, tls: bool) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))), tls=tls, admission=Admission(1))
    context = bench.papers.client() if tls else None
    name = "www.example.com" if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    for _ in range(2):
        writer.write(KEPT)
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
        status, fields, body = parts(await talk(port, GET, context))
        assert (status, fields["retry-after"], fields["connection"]) == (503, "1", "close")
        assert json.loads(body)["reason"] == "as many clients are connected as this edge serves"
        await until(lambda: proxy.admission.rejected == 0)
    assert count(proxy, "clients_rejected_total") == ['firstbyte_edge_clients_rejected_total{answer="503"} 2']
    writer.close()
    await until_idle(proxy)
    assert repr(proxy.admission) == "<Admission served=0 of 1 rejected=0>"


async def test_a_flood_beyond_the_limit_is_reset(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))), admission=Admission(1, max_rejected=0))
    _, inside = await asyncio.open_connection("127.0.0.1", port)
    await until(lambda: proxy.admission.served == 1)
    with pytest.raises(ConnectionResetError):
        await knock(port)
    assert count(proxy, "clients_rejected_total") == ['firstbyte_edge_clients_rejected_total{answer="reset"} 1']
    inside.close()


@pytest.mark.parametrize("before", [KEPT, b""], ids=["between-requests", "before-the-first"])
async def test_an_idle_connection_is_evicted_for_a_new_client(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    monkeypatch.setattr("edge.admission.QUIET", 0.0)
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))), admission=Admission(1))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(before)
    if before:
        await reader.readuntil(b"ok")
    await until(lambda: any(client.quiet_since is not None for client in proxy._clients))
    assert parts(await talk(port, GET))[0] == 200
    assert await reader.read() == b""
    assert count(proxy, "clients_evicted_total") == ["firstbyte_edge_clients_evicted_total 1"]
    writer.close()
    await until_idle(proxy)


async def test_a_failed_handshake_frees_its_place_and_is_logged_with_its_client(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    proxy, port = await bench.edge(plain(1), tls=True, admission=Admission(1))
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    await until(lambda: proxy.admission.served == 1)
    writer.write(GET)  # plain HTTP instead of a ClientHello, so the handshake fails
    await until(lambda: proxy.admission.served == 0)
    writer.close()
    (line,) = [vars(record)["fields"] for record in caplog.records if record.message == "handshake_failed"]
    assert line == {"client": "127.0.0.1", "reason": "http_request"}


async def test_an_unfinished_handshake_is_evicted_for_a_new_client(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.admission.QUIET", 0.0)
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))), tls=True, admission=Admission(1))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x16\x03\x01\x02")  # the first 4 of the 5 bytes of a TLS record header
    await until(lambda: proxy.admission.served == 1)
    assert parts(await talk(port, GET, bench.papers.client()))[0] == 200
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    assert count(proxy, "clients_evicted_total") == ["firstbyte_edge_clients_evicted_total 1"]
    writer.close()
    await until_idle(proxy)
    assert repr(proxy.admission) == "<Admission served=0 of 1 rejected=0>"


async def test_a_connection_that_is_being_rejected_is_never_evicted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.admission.QUIET", 0.0)
    monkeypatch.setattr("edge.admission.SEARCH_EVERY", 0.0)
    proxy, port = await bench.edge(plain(1), tls=True, admission=Admission(1))
    context = bench.papers.client()
    _, busy = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="www.example.com")
    busy.write(GET[:10])  # an incomplete request head keeps the connection busy
    await until(lambda: all(client.quiet_since is None for client in proxy._clients))
    _, stalled = await asyncio.open_connection("127.0.0.1", port)  # starts no TLS handshake, so gets no 503
    await until(lambda: proxy.admission.rejected == 1)
    status, _, _ = parts(await talk(port, GET, context))
    assert status == 503
    assert proxy.admission.served == 1
    assert count(proxy, "clients_evicted_total") == ["firstbyte_edge_clients_evicted_total 0"]
    for writer in (busy, stalled):
        writer.close()
    await until_idle(proxy)


async def test_without_free_descriptors_clients_wait_in_the_backlog(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
        try:
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
            await until(lambda: "out of system resource" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await until(lambda: proxy.admission.served == 1)
    await until_idle(proxy)


@pytest.mark.parametrize(
    ("clients", "expected"),
    [("0", "expected --max-clients of at least 1, got 0"), ("99999999", "expected --max-clients of at most ")],
)
def test_a_limit_that_cannot_be_held_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], clients: str, expected: str
) -> None:
    with pytest.raises(SystemExit) as exit_code:
        main(["--http", "127.0.0.1:0", "--upstream", "/=http://127.0.0.1:9", "--max-clients", clients])
    assert exit_code.value.code == 2
    assert expected in capsys.readouterr().err
