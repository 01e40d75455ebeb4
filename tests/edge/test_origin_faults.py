"""Tests for faulty, silent and unreachable origins: error responses, and retries on other origins."""

import asyncio
import json

import pytest

from edge import Target, Timeouts
from tests.edge.conftest import GET, Bench, parts, plain, talk
from tests.peers import OK, read_request, replying


async def closes(reader, writer) -> None:
    await read_request(reader)


async def resets(reader, writer) -> None:
    await read_request(reader)
    writer.transport.abort()


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        pytest.param(closes, 502, "closed", id="closes"),
        pytest.param(resets, 502, "closed", id="resets"),
        pytest.param(replying(b"nonsense\r\n\r\n"), 502, "expected an HTTP response", id="nonsense"),
        pytest.param(
            replying(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"), 502, "more than", id="many-fields"
        ),
        pytest.param(
            replying(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), 502, "", id="upgrade"
        ),
    ],
)
async def test_an_origin_that_misbehaves_before_the_first_byte_is_a_502_with_its_name(
    bench: Bench, script, status: int, reason: str
) -> None:
    origin = await bench.start(script)
    _, port = await bench.edge(plain(origin))
    got, _, body = parts(await talk(port, GET))
    assert got == status
    assert json.loads(body)["upstream"] == f"http://127.0.0.1:{origin}"
    assert reason in json.loads(body)["reason"]


async def test_an_origin_that_refuses_is_a_502_and_a_silent_one_a_504(bench: Bench) -> None:
    _, port = await bench.edge(Target("127.0.0.1", 1, tls=False))
    status, _, body = parts(await talk(port, GET))
    assert (status, "refused" in json.loads(body)["reason"].lower()) == (502, True)

    async def silent(reader, writer) -> None:
        await read_request(reader)
        await asyncio.sleep(1)  # twenty times the edge's response time-out of 0.05 s

    _, port = await bench.edge(plain(await bench.start(silent)), timeouts=Timeouts(response=0.05))
    assert parts(await talk(port, GET))[0] == 504


async def test_a_response_cut_short_does_not_look_whole(bench: Bench) -> None:
    async def script(reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        await writer.drain()

    _, port = await bench.edge(plain(await bench.start(script)))
    _, fields, body = parts(await talk(port, GET))
    assert len(body) < int(fields["content-length"])


async def test_a_dead_origin_is_passed_over(bench: Bench) -> None:
    alive = await bench.start(replying(OK))
    _, port = await bench.edge(Target("127.0.0.1", 1, tls=False), plain(alive))
    for _ in range(6):
        assert parts(await talk(port, GET))[0] == 200
