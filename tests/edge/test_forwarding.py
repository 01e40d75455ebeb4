"""Tests that requests and responses are forwarded completely, in order, and no faster than the client reads."""

import asyncio
import re

import pytest

from tests.edge.conftest import GET, Bench, parts, plain, talk
from tests.peers import OK, read_request, replying


async def test_a_request_is_forwarded_with_the_right_fields(bench: Bench) -> None:
    seen = []

    async def script(reader, writer) -> None:
        seen.append(await read_request(reader))
        writer.write(
            b"HTTP/1.1 200 Fine\r\nContent-Length: 2\r\nConnection: X-Hop\r\n"
            b"X-Hop: 1\r\nKeep-Alive: 5\r\nX-End: 2\r\n\r\nok"
        )

    _, port = await bench.edge(plain(await bench.start(script)))
    request = (
        b"POST /a?b=c HTTP/1.1\r\nHost: www.example.com\r\n"
        b"Connection: close, X-Secret\r\nX-Secret: 1\r\nTE: trailers\r\n"
        b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: ftp\r\nContent-Length: 3\r\n\r\nabc"
    )
    status, fields, body = parts(await talk(port, request))
    line, sent, received = seen[0]
    assert (status, body, line, received) == (200, b"ok", "POST /a?b=c HTTP/1.1", b"abc")
    assert sent["host"] == sent["x-forwarded-host"] == "www.example.com"
    assert sent["x-forwarded-for"] == "203.0.113.9, 127.0.0.1"
    assert sent["x-forwarded-proto"] == "http"
    assert sent["via"] == "1.1 firstbyte-edge"
    assert not {"x-secret", "te", "connection", "keep-alive"} & set(sent)
    assert fields["x-end"] == "2"
    assert "x-hop" not in fields
    assert "keep-alive" not in fields
    assert fields["connection"] == "close"
    assert re.search(r"pool;dur=[0-9.]+", fields["server-timing"])
    assert 'desc="fresh"' in fields["server-timing"]
    origin = r'upstream;dur=[0-9.]+;desc="http://127\.0\.0\.1:[0-9]+"'
    assert re.search(origin, fields["server-timing"])


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
async def test_chunked_bodies_of_any_size_are_forwarded_both_ways(bench: Bench, size: int) -> None:
    async def echo(reader, writer) -> None:
        _, _, body = await read_request(reader)
        half = len(body) // 2
        pieces = [p for p in (body[:half], body[half:]) if p]
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    _, port = await bench.edge(plain(await bench.start(echo)))
    data = bytes(i % 251 for i in range(size))
    head = b"POST / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    request = head + (b"%x\r\n%b\r\n" % (size, data) if size else b"") + b"0\r\n\r\n"
    status, fields, body = parts(await talk(port, request))
    assert (status, fields["transfer-encoding"]) == (200, "chunked")
    received = b""
    while body:
        length, _, rest = body.partition(b"\r\n")
        received, body = received + rest[: int(length, 16)], rest[int(length, 16) + 2 :]
    assert received == data


@pytest.mark.parametrize(
    ("request_", "reply", "status", "body"),
    [
        pytest.param(GET.replace(b"GET", b"HEAD"),
                     b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, b"", id="head"),
        pytest.param(GET, b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="204"),
        pytest.param(GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", id="304"),
        pytest.param(GET.replace(b"1.1", b"1.0"),
                     b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, b"ok", id="interim"),
        pytest.param(GET.replace(b"1.1", b"1.0"),
                     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                     200, b"ok", id="http-1.0-client"),
    ],
)  # fmt: skip
async def test_messages_with_and_without_bodies_are_forwarded(
    bench: Bench, request_: bytes, reply: bytes, status: int, body: bytes
) -> None:
    _, port = await bench.edge(plain(await bench.start(replying(reply))))
    got, _, content = parts(await talk(port, request_))
    assert (got, content) == (status, body)


async def test_interim_responses_pass_in_front_of_the_final_one(bench: Bench) -> None:
    _, port = await bench.edge(plain(await bench.start(replying(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK))))
    early, _, final = (await talk(port, GET)).partition(b"\r\n\r\n")
    assert early.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n")
    assert parts(final)[::2] == (200, b"ok")


async def test_a_response_delimited_by_close_is_chunked_for_the_client(bench: Bench) -> None:
    async def script(reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        await writer.drain()

    _, port = await bench.edge(plain(await bench.start(script)))
    assert (await talk(port, GET)).endswith(b"d\r\nuntil the end\r\n0\r\n\r\n")


async def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    async def script(reader, writer) -> None:
        while True:
            line, _, _ = await read_request(reader)
            path = line.split()[1].encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    _, port = await bench.edge(plain(await bench.start(script)))
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: x.test\r\n\r\n" % i for i in range(20))
    answer = await talk(port, requests + GET.replace(b"/ ", b"/last "))
    assert [line for line in answer.replace(b"HTTP/1.1", b"\nHTTP/1.1").split(b"\n") if line.startswith(b"/")] == [
        *(b"/%d" % i for i in range(20)), b"/last",
    ]  # fmt: skip


async def test_a_slow_client_slows_the_origin_down(bench: Bench) -> None:
    sent = 0

    async def flood(reader, writer) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(500):
            writer.write(b"x" * 100_000)
            sent += 100_000
            await writer.drain()

    _, port = await bench.edge(plain(await bench.start(flood)))
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    held = -1
    while held != sent:  # wait until the origin cannot send any more
        held = sent
        await asyncio.sleep(0.2)  # interval between two reads of the byte count
    assert 1_000_000 < held < 25_000_000
    received = 0
    while chunk := await reader.read(1 << 20):
        received += len(chunk)
    assert received == 50_000_000
    writer.close()
    await writer.wait_closed()
