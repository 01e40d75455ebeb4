"""Tests for pooled origin connections over real sockets; `test_pool` tests the pool's decisions."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from edge import Limits, Route
from edge.exchange import Exchange
from tests.edge.conftest import GET, Bench, parts, plain, talk
from tests.peers import OK, read_request, replying


async def test_pooled_connections_are_reused_and_fresh_ones_are_not(bench: Bench) -> None:
    connections = 0

    async def script(reader, writer) -> None:
        nonlocal connections
        connections += 1
        await replying(OK)(reader, writer)

    origin = await bench.start(script)
    _, pooled = await bench.edge(plain(origin))
    for _ in range(3):
        answer = await talk(pooled, GET)
    assert connections == 1
    assert b'desc="reused"' in answer
    _, fresh = await bench.edge(plain(origin), pooled=False)
    for _ in range(3):
        answer = await talk(fresh, GET)
    assert connections == 4
    assert b'desc="fresh"' in answer


async def test_a_reused_connection_that_died_is_replaced_without_the_client_noticing(bench: Bench) -> None:
    async def one_each(reader, writer) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # the origin reads the next request and closes without a response

    _, port = await bench.edge(plain(await bench.start(one_each)))
    for _ in range(3):
        assert parts(await talk(port, GET))[0] == 200
    # A request that is not idempotent is not retried.
    post = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\na"
    assert parts(await talk(port, post))[0] == 502


async def test_a_full_pool_makes_requests_wait_and_a_full_queue_refuses(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(reader, writer) -> None:
        while True:
            await read_request(reader)
            await asyncio.sleep(0.03)  # delays the response, so that the other requests are queued
            writer.write(OK)

    origin = plain(await bench.start(slow))
    _, port = await bench.edge(origin, limits=Limits(per_target=1))
    assert [parts(a)[0] for a in await asyncio.gather(*(talk(port, GET) for _ in range(4)))] == [200] * 4
    _, port = await bench.edge(origin, limits=Limits(per_target=1, waiting=1))
    answers = [parts(a) for a in await asyncio.gather(*(talk(port, GET) for _ in range(4)))]
    assert sorted(status for status, _, _ in answers) == [200, 200, 503, 503]
    assert all(fields.get("retry-after") == "1" for status, fields, _ in answers if status == 503)


async def test_a_connection_that_a_slow_client_held_back_serves_the_next_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body_that_fills_the_buffer(exchange: Exchange, *args: Any, **more: Any) -> None:
        receive(exchange, *args, **more)
        exchange.client_writable(writable=False)  # simulates a full write buffer of the client's transport

    receive = Exchange.response_begins
    _, port = await bench.edge(plain(await bench.start(replying(OK))), limits=Limits(per_target=1))
    with monkeypatch.context() as patch:
        patch.setattr(Exchange, "response_begins", body_that_fills_the_buffer)
        assert parts(await talk(port, GET))[0] == 200
    async with asyncio.timeout(5):
        status, fields, body = parts(await talk(port, GET))
    assert (status, body) == (200, b"ok")
    assert "reused" in fields["server-timing"]


async def test_an_idle_connection_that_its_origin_closes_leaves_the_pool_of_its_own_route(bench: Bench) -> None:
    async def once(reader, writer) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()

    proxy, _ = await bench.edge(plain(await bench.start(once)))
    route = Route("/own", (plain(await bench.start(once)),))
    proxy.reconfigure(replace(proxy.settings, routes=(*proxy.settings.routes, route)))
    _, port = await proxy.listen(("127.0.0.1", 0), "other")
    assert parts(await talk(port, GET.replace(b"GET / ", b"GET /own ")))[0] == 200
    await asyncio.sleep(0.1)  # time for the edge to notice that the origin has closed the connection
    assert [row["idle"] for row in proxy.pools[route].core.describe(time.monotonic())] == [0]
