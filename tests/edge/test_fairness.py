"""Tests that slow, silent and disconnected clients do not affect other clients."""

import asyncio
import json
from functools import partial

import pytest

from edge import Limits, Timeouts
from edge.exchange import BODY_BUFFER
from tests.edge.conftest import GET, Bench, parts, plain, talk, until_idle
from tests.peers import OK, read_request, replying
from tests.waiting import until

POST = b"POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: %d\r\n\r\n"
KEPT = GET.replace(b"Connection: close\r\n", b"")


async def connect(port: int, request: bytes, **more) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", port, **more)
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # StreamWriter.transport is typed as write-only
    writer.write(request)
    return writer


async def test_a_body_that_trickles_holds_no_pooled_connection(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))), limits=Limits(per_target=1))
    slow = [await connect(port, POST % 1000 + b"x") for _ in range(3)]
    await until(lambda: len(proxy._exchanges) == 3)
    assert parts(await talk(port, GET))[0] == 200
    for writer in slow:
        writer.transport.abort()
    await until_idle(proxy)


async def test_a_large_body_that_stops_gives_way_when_others_wait(bench: Bench) -> None:
    proxy, port = await bench.edge(
        plain(await bench.start(replying(OK))), limits=Limits(per_target=1), timeouts=Timeouts(send_contended=0.1)
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST % (BODY_BUFFER * 4) + bytes(BODY_BUFFER))
    await until(lambda: any(row["active"] for row in proxy._rows()))
    assert parts(await talk(port, GET))[0] == 200
    status, _, body = parts(await asyncio.wait_for(reader.read(), 5))
    assert (status, "wait for a connection" in json.loads(body)["reason"]) == (408, True)
    writer.close()


@pytest.mark.parametrize("contended", [True, False], ids=["others-wait", "nobody-waits"])
async def test_a_client_that_takes_nothing_of_its_response_is_cut_off(bench: Bench, *, contended: bool) -> None:
    async def long(reader, writer) -> None:
        while True:
            line, _, _ = await read_request(reader)
            size = 20_000_000 if "/long" in line else 2
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            writer.write(bytes(size))
            await writer.drain()

    limits = Timeouts(send_contended=0.1, send=60) if contended else Timeouts(send=0.2)
    proxy, port = await bench.edge(plain(await bench.start(long)), limits=Limits(per_target=1), timeouts=limits)
    writer = await connect(port, KEPT.replace(b"GET /", b"GET /long"), limit=1024)
    await until(lambda: any(exchange.answered for exchange in proxy._exchanges))
    if contended:
        assert parts(await talk(port, GET))[0] == 200
    await until(lambda: not proxy._exchanges)
    writer.transport.abort()
    await until_idle(proxy)
    assert 'status="truncated"} 1' in proxy.telemetry.metrics.render()


async def test_a_body_below_the_minimum_rate_is_a_408(bench: Bench) -> None:
    limits = Timeouts(min_rate=1000, rate_window=0.2)
    _, port = await bench.edge(plain(await bench.start(replying(OK))), timeouts=limits)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST % 1000)
    for _ in range(100):
        writer.write(b"x")
        await asyncio.sleep(0.01)  # at most 100 bytes per second
        if reader._buffer:  # type: ignore[attr-defined]  # stop sending once a response has arrived
            break
    status, _, body = parts(await asyncio.wait_for(reader.read(), 5))
    assert (status, "bytes/s" in json.loads(body)["reason"]) == (408, True)
    writer.close()


async def test_clients_that_left_the_queue_do_not_count(bench: Bench) -> None:
    release = asyncio.Event()

    async def slow(reader, writer) -> None:
        while True:
            await read_request(reader)
            await release.wait()
            writer.write(OK)

    proxy, port = await bench.edge(plain(await bench.start(slow)), limits=Limits(per_target=1, waiting=3))
    pool = next(iter(proxy.pools.values())).core
    waiting = [await connect(port, GET) for _ in range(4)]
    await until(lambda: pool.waiting == 3)
    for writer in waiting[1:]:
        writer.transport.abort()
    await until(lambda: pool.waiting == 0)
    newcomer = asyncio.create_task(talk(port, GET))
    await until(lambda: pool.waiting == 1)
    release.set()
    assert parts(await newcomer)[0] == 200
    waiting[0].transport.abort()


async def test_requests_are_served_in_the_order_in_which_they_came(bench: Bench) -> None:
    served: list[str] = []

    async def tenth(reader, writer) -> None:
        while True:
            line, _, _ = await read_request(reader)
            served.append(line.split()[1])
            await asyncio.sleep(0.01)  # delays the response, so that the other requests are queued
            writer.write(OK)

    proxy, port = await bench.edge(plain(await bench.start(tenth)), limits=Limits(per_target=1))
    pool = next(iter(proxy.pools.values())).core
    tasks = []
    for number in range(8):
        tasks.append(asyncio.create_task(talk(port, GET.replace(b"GET /", b"GET /%d" % number))))
        await until(partial(lambda before: pool.waiting + len(served) > before, number))
    await asyncio.gather(*tasks)
    assert served == [f"/{number}" for number in range(8)]


async def test_a_silent_connection_is_closed_without_a_word(bench: Bench) -> None:
    _, port = await bench.edge(plain(await bench.start(replying(OK))), timeouts=Timeouts(head=0.05))
    assert await talk(port, b"") == b""


async def test_a_response_may_take_longer_than_a_client_may_be_idle(bench: Bench) -> None:
    async def slow(reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _ in range(8):
            await asyncio.sleep(0.05)  # eight pauses of 0.05 s are four times the idle time-out
            writer.write(b"x")
        await reader.read()

    limits = Timeouts(idle=0.1, head=0.1, body=0.1)
    _, port = await bench.edge(plain(await bench.start(slow)), timeouts=limits)
    assert parts(await talk(port, KEPT))[2] == b"x" * 8


async def test_a_slow_reader_of_a_last_response_gets_all_of_it(bench: Bench) -> None:
    size = 3_000_000
    _, port = await bench.edge(
        plain(await bench.start(replying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)))),
        timeouts=Timeouts(linger=0.05, send=1, idle=0.1),
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=16_384)
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    received = 0
    while chunk := await reader.read(200_000):
        received += len(chunk)
        await asyncio.sleep(0.01)  # slower than the edge sends; all pauses together exceed the linger time-out
    assert received == size
    writer.close()
