"""Tests for writes through the edge when an origin is killed between the commit and the response."""

import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest

from tests.edge.conftest import Bench, bench, plain
from tests.origin.processes import Process, running
from tests.peers import papers
from tests.waiting import until

__all__ = ["bench", "papers"]


@pytest.fixture
def origins(tmp_path: Path):
    """Run two origins that share one database."""
    with running(tmp_path, "one") as one, running(tmp_path, "two") as two:
        yield one, two


@contextlib.asynccontextmanager
async def edge(bench: Bench, origins: tuple[Process, ...]) -> AsyncIterator[aiohttp.ClientSession]:
    _, port = await bench.edge(*(plain(each.port) for each in origins))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        yield http


def teas(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "catalog.sqlite")) as db:
        return int(db.execute("SELECT count(*) FROM item WHERE name = 'Tea'").fetchone()[0])


async def post(http: aiohttp.ClientSession, **headers: str) -> tuple[int, Mapping[str, str]]:
    async with http.post("/items", json={"name": "Tea"}, headers=headers) as response:
        return response.status, response.headers


async def test_a_post_whose_origin_dies_is_not_repeated_by_the_edge(bench: Bench, origins, tmp_path: Path) -> None:
    origins[0].call("POST", "/admin/faults/crash_before_reply")
    async with edge(bench, origins) as http:
        sent = 1
        while (status := (await post(http))[0]) == 201:
            sent += 1
        assert status == 502, "the edge does not know the outcome"
        assert teas(tmp_path) == sent, "each was written once, and so was the last one"


async def test_with_a_key_the_client_may_repeat_it(bench: Bench, origins, tmp_path: Path) -> None:
    origins[0].call("POST", "/admin/faults/crash_before_reply")
    origins[1].call("POST", "/admin/faults/crash_before_reply")
    async with edge(bench, origins) as http:
        assert (await post(http, **{"Idempotency-Key": "order-1"}))[0] == 502
        assert teas(tmp_path) == 1
        await until(lambda: any(each.process.poll() is not None for each in origins))
        for each in origins:
            if each.process.poll() is None:
                each.call("DELETE", "/admin/faults/crash_before_reply")
        status, fields = await post(http, **{"Idempotency-Key": "order-1"})
        assert (status, fields["Idempotency-Replayed"]) == (201, "true")
        async with http.get(fields["Location"]) as response:
            assert (await response.json())["name"] == "Tea"
        assert teas(tmp_path) == 1


async def test_a_put_whose_origin_dies_is_repeated_on_the_other(bench: Bench, origins, tmp_path: Path) -> None:
    origins[0].call("POST", "/admin/faults/crash_before_reply")
    async with edge(bench, origins) as http:
        sent, status = 0, 201
        while status == 201:
            async with http.put(f"/items/p{sent}", json={"name": "Tea"}) as response:
                status = response.status
                sent += 1
        assert status == 200, "the other origin found what the dead one had written"
        assert teas(tmp_path) == sent


async def test_a_websocket_and_events_pass_the_edge(bench: Bench, origins) -> None:
    async with edge(bench, origins) as http:
        async with http.ws_connect("/echo") as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
            await socket.send_bytes(bytes(range(256)) * 400)
            assert await socket.receive_bytes() == bytes(range(256)) * 400
        async with http.get("/events?count=3&interval=10", headers={"Last-Event-ID": "1"}) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            blocks = [block.splitlines() async for block in _blocks(response)]
            assert [block[0] for block in blocks] == ["id: 2", "id: 3"]
            assert json.loads(blocks[0][1].removeprefix("data: "))["of"] == 3


async def _blocks(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    for block in (await response.text()).split("\n\n")[:-1]:
        yield block
