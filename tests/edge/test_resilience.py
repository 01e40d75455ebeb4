"""Tests for partial origin failures: idempotent requests are retried on another origin or a new connection."""

import asyncio
import json
import time

import pytest

from edge import Limits, Target, Timeouts
from edge.proxy import Proxy
from stub import Answer
from tests.edge.conftest import GET, Bench, parts, plain, talk
from tests.peers import OK, Papers, read_request, replying
from tests.waiting import until

POST = b"POST / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\nContent-Length: 1\r\n\r\na"


async def closes(reader, writer) -> None:
    await read_request(reader)


async def test_a_half_dead_origin_costs_no_request_and_is_ejected(bench: Bench) -> None:
    good, bad = plain(await bench.start(replying(OK))), plain(await bench.start(closes))
    proxy, port = await bench.edge(good, bad)
    for _ in range(20):
        answers = await asyncio.gather(*(talk(port, GET) for _ in range(5)))
        assert {parts(answer)[0] for answer in answers} == {200}
    rows = {row["name"]: row for row in proxy._rows()}
    assert rows[str(bad)]["ejected"]
    assert not rows[str(good)]["ejected"]


async def test_what_is_not_idempotent_is_sent_once(bench: Bench) -> None:
    asked: list[str] = []

    async def counts(reader, writer) -> None:
        asked.append((await read_request(reader))[0])

    _, port = await bench.edge(plain(await bench.start(counts)), plain(await bench.start(counts)))
    assert parts(await talk(port, POST))[0] == 502
    assert len(asked) == 1
    assert parts(await talk(port, POST.replace(b"POST", b"PUT")))[0] == 502
    assert len(asked) == 3, "the body of a small PUT is sent again"


async def test_when_every_idle_connection_is_dead_a_fresh_one_is_opened(bench: Bench) -> None:
    answered = 0

    async def dies_later(reader, writer) -> None:
        nonlocal answered
        await read_request(reader)
        answered += 1
        await asyncio.sleep(0.05 if answered <= 3 else 0)  # makes three requests concurrent, on three connections
        writer.write(OK)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # the origin reads the next request and closes without a response

    proxy, port = await bench.edge(plain(await bench.start(dies_later)))
    await asyncio.gather(*(talk(port, GET) for _ in range(3)))
    assert sum(row["idle"] for row in proxy._rows()) == 3
    assert parts(await talk(port, GET))[0] == 200


async def test_after_a_stale_connection_to_each_origin_a_dead_one_is_passed_over(bench: Bench) -> None:
    async def once(reader, writer) -> None:
        await read_request(reader)
        await asyncio.sleep(0.05)  # makes two requests concurrent, so that each origin gets one
        writer.write(OK)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # the origin reads the next request and closes without a response

    live = plain(await bench.start(once))
    for order in range(2):
        async with Bench.opened(bench.papers) as mortal:
            dead = plain(await mortal.start(once))
            proxy, port = await bench.edge(*((dead, live) if order else (live, dead)))
            await asyncio.gather(talk(port, GET), talk(port, GET))
            assert [row["idle"] for row in proxy._rows()] == [1, 1]
            mortal.stop_listening()
            assert parts(await talk(port, GET))[0] == 200


async def test_retries_stop_when_the_budget_is_spent(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(closes)), plain(await bench.start(replying(OK))))
    pool = next(iter(proxy.pools.values()))
    while pool.retries.spend(time.monotonic()):
        pass
    pool.retries._per_second = pool.retries._ratio = 0.0
    statuses = [parts(await talk(port, GET))[0] for _ in range(6)]
    assert 502 in statuses


async def test_a_silent_origin_is_passed_over_after_the_time_out(bench: Bench) -> None:
    async def silent(reader, writer) -> None:
        await read_request(reader)
        await reader.read()

    _, port = await bench.edge(
        plain(await bench.start(silent)), plain(await bench.start(replying(OK))), timeouts=Timeouts(response=0.5)
    )
    assert [parts(await talk(port, GET))[0] for _ in range(3)] == [200] * 3


def knows(proxy: Proxy, name: str, *addresses: str) -> None:
    """Store *addresses* of *name* in the cache of the edge's stub resolver."""
    now = time.monotonic()
    proxy.stub.cache.put(
        name, "A", Answer(name, "A", addresses, 60.0, now + 60.0, False, 0.0, "", canonical_name=name), 60.0, now
    )


async def test_every_address_of_a_name_is_tried(bench: Bench) -> None:
    origin = await bench.start(replying(OK))
    proxy, port = await bench.edge(Target("two.example.com", origin, tls=False), limits=Limits(idle=0))
    knows(proxy, "two.example.com", "127.0.0.9", "127.0.0.1")
    assert {parts(await talk(port, GET))[0] for _ in range(6)} == {200}


async def test_connections_to_an_address_that_left_the_answer_are_closed(bench: Bench) -> None:
    origin = await bench.start(replying(OK))
    proxy, port = await bench.edge(Target("moves.example.com", origin, tls=False))
    knows(proxy, "moves.example.com", "127.0.0.1")
    assert parts(await talk(port, GET))[0] == 200
    assert [row["idle"] for row in proxy._rows()] == [1]
    knows(proxy, "moves.example.com", "127.0.0.9")
    await until(lambda: [row["idle"] for row in proxy._rows()] == [0])


async def test_bytes_after_a_response_end_its_connection(bench: Bench) -> None:
    async def too_much(reader, writer) -> None:
        while True:
            await read_request(reader)
            writer.write(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")

    proxy, port = await bench.edge(plain(await bench.start(too_much)))
    for _ in range(3):
        assert parts(await talk(port, GET))[2] == b"ok"
    assert [(row["opened"], row["reused"]) for row in proxy._rows()] == [(3, 0)]


@pytest.mark.parametrize(("announced", "whole"), [(True, True), (False, False)])
async def test_over_tls_a_response_until_close_needs_a_close_notify(
    bench: Bench, papers: Papers, *, announced: bool, whole: bool
) -> None:
    async def until_close(reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        await asyncio.sleep(0.05)  # gives the edge time to read the response before the close
        if not announced:
            writer.transport.abort()

    origin = await bench.start(until_close, papers.server("catalog-1.example.com", mutual=True))
    proxy, port = await bench.edge(Target("catalog-1.example.com", origin))
    knows(proxy, "catalog-1.example.com", "127.0.0.1")
    assert (await talk(port, GET)).endswith(b"0\r\n\r\n") is whole


async def test_an_upgrade_that_is_not_offered_is_ignored(bench: Bench) -> None:
    seen: list[dict[str, str]] = []

    async def script(reader, writer) -> None:
        while True:
            seen.append((await read_request(reader))[1])
            writer.write(OK)

    _, port = await bench.edge(plain(await bench.start(script)))
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    answer = await talk(port, GET[:-2].replace(b"Connection: close\r\n", b"") + upgrade + GET)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == answer.count(b"HTTP/1.1 ") == 2
    assert not {"upgrade", "http2-settings"} & set(seen[0])


async def test_a_websocket_is_tunnelled(bench: Bench) -> None:
    async def echo(reader, writer) -> None:
        _, fields, _ = await read_request(reader)
        assert (fields["upgrade"], fields["connection"], fields["sec-websocket-key"]) == ("websocket", "upgrade", "k")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello ")
        while data := await reader.read(100):
            writer.write(data.upper())

    proxy, port = await bench.edge(plain(await bench.start(echo)))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /chat HTTP/1.1\r\nHost: x.test\r\n"
        b"Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n"
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"upgrade: websocket\r\n" in head
    for word in (b"one", b"two"):
        writer.write(word)
        assert (await asyncio.wait_for(reader.readuntil(word.upper()), 5)).endswith(word.upper())
    writer.close()
    await until(lambda: not proxy._clients and not proxy._exchanges)
    assert 'status="aborted"} 1' in proxy.telemetry.metrics.render()


async def test_100_continue_never_lands_in_an_earlier_response(bench: Bench) -> None:
    async def slow(reader, writer) -> None:
        while True:
            line, _, _ = await read_request(reader)
            if "/slow" in line:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
                await asyncio.sleep(0.1)  # the client sends its next request during this time
                writer.write(b"56789")
            else:
                writer.write(OK)

    _, port = await bench.edge(plain(await bench.start(slow)))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.write(POST.replace(b"Connection: close", b"Expect: 100-continue")[:-1])
    assert await reader.readexactly(10) == b"0123456789"
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"a")
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 OK")
    writer.close()


@pytest.mark.parametrize(
    ("request_", "status", "reported"),
    [
        pytest.param(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
                     200, True, id="expect-in-1.0"),
        pytest.param(b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n"
                     b"Connection: close\r\nCookie: s\r\n\r\n", 200, False, id="trace-0"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, False, id="options-asterisk"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", 200, True, id="no-host-in-1.0"),
        pytest.param(b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", 400, False, id="rtsp"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417, False, id="expect-other"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n"
                     b"Connection: Upgrade, close\r\nContent-Length: 1\r\n\r\na", 200, True, id="h2c-with-body"),
    ],
)  # fmt: skip
async def test_details_of_requests(bench: Bench, request_: bytes, status: int, reported: bool) -> None:
    seen: list[dict[str, str]] = []

    async def script(reader, writer) -> None:
        seen.append((await read_request(reader))[1])
        writer.write(OK)
        await writer.drain()
        await reader.read()

    origin = plain(await bench.start(script))
    _, port = await bench.edge(origin)
    answer = await talk(port, request_)
    got, fields, body = parts(answer)
    assert (got, bool(seen)) == (status, reported)
    assert answer.count(b"HTTP/1.1 ") == 1 or b"message/http" in answer
    assert "date" in fields
    assert b"ookie" not in body
    if reported:
        assert seen[0]["host"] in {"a", f"127.0.0.1:{origin.port}"}


async def test_every_refusal_is_counted_and_a_cut_response_is_no_200(bench: Bench) -> None:
    async def cut(reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")

    proxy, port = await bench.edge(plain(await bench.start(cut)))
    for data in (
        b"GET / HTTP/1.1\r\nX Y: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n",
        GET,
    ):
        await talk(port, data)
    page = proxy.telemetry.metrics.render()
    counted = {line for line in page.splitlines() if line.startswith("firstbyte_edge_requests_total{")}
    assert counted == {
        f'firstbyte_edge_requests_total{{listener="http",status="{status}"}} 1'
        for status in (400, 405, 414, "truncated")
    }


async def test_a_failed_handshake_is_counted_with_its_reason(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(1), tls=True)
    await talk(port, GET)
    page = proxy.telemetry.metrics.render()
    assert 'firstbyte_edge_handshake_failures_total{reason="http_request"} 1' in page


async def test_requests_are_refused_at_once_after_all_origins_have_timed_out(bench: Bench) -> None:
    async def silent(reader, _writer) -> None:  # accepts connections, but never answers the ClientHello
        await reader.read()

    targets = [Target(f"catalog-{n}.example.com", await bench.start(silent)) for n in (1, 2)]
    proxy, port = await bench.edge(
        *targets, limits=Limits(failures=1, ejected_s=60.0, ejected_max_s=60.0), timeouts=Timeouts(connect=0.1)
    )
    for target in targets:
        knows(proxy, target.host, "127.0.0.1")
    status, _, body = parts(await talk(port, GET))
    assert (status, json.loads(body)["reason"]) == (504, "TLS handshake: not within 0.1 s")
    status, fields, body = parts(await talk(port, GET))
    assert (status, json.loads(body)["reason"], fields["retry-after"]) == (503, "no origin responds", "1")
    assert [row["failed"] for row in proxy._rows()] == [1, 1]
    page = proxy.telemetry.metrics.render()
    assert f'firstbyte_edge_pool_connections{{route="/",upstream="{targets[0]}",state="active"}} 0' in page
