"""Tests for closing client connections: when the edge stops, and after the keep-alive time-out."""

import asyncio
import time

from tests.edge.conftest import GET, Bench, parts, plain, talk
from tests.peers import OK, read_request, replying


async def test_stopping_finishes_what_is_under_way(bench: Bench) -> None:
    asked = asyncio.Event()

    async def slow(reader, writer) -> None:
        await read_request(reader)
        asked.set()
        await asyncio.sleep(0.05)  # the edge begins to stop during this time
        writer.write(OK)
        await writer.drain()

    proxy, port = await bench.edge(plain(await bench.start(slow)))
    under_way = asyncio.create_task(talk(port, GET.replace(b"Connection: close\r\n", b"")))
    await asked.wait()
    await proxy.close()
    status, fields, _ = parts(await under_way)
    assert (status, fields["connection"]) == (200, "close")


async def test_a_short_keep_alive_closes_to_the_millisecond(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))))
    proxy.telemetry.faults.switch_on("short_keep_alive", {"s": 0.2})
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):  # the second request restarts the idle time-out
        writer.write(GET.replace(b"Connection: close\r\n", b""))
        assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
        silent = time.monotonic()
        await asyncio.sleep(0.1)  # half of the idle time-out of 0.2 s
    assert await asyncio.wait_for(reader.read(), 5) == b""
    assert 0.19 < time.monotonic() - silent < 1.0
    writer.close()
    await writer.wait_closed()
