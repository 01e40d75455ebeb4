"""Tests for incomplete requests: they get a response if possible, and leak no connection, pool slot or task."""

import asyncio
import json

import pytest

from edge import Limits, Timeouts
from edge.exchange import BODY_BUFFER
from tests.edge.conftest import GET, Bench, parts, plain, talk, until_idle
from tests.peers import OK, read_request, replying
from tests.waiting import until

CHUNKED = b"POST / HTTP/1.1\r\nHost: x.test\r\nTransfer-Encoding: chunked\r\n\r\n"


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Origin that reads the request and never responds."""
    while await reader.read(65536):
        pass


async def test_a_chunk_that_is_none_ends_the_request_it_belongs_to(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(swallow)))
    status, fields, body = parts(await talk(port, CHUNKED + b"3\r\nabc\r\nnonsense\r\n"))
    assert (status, fields["connection"]) == (400, "close")
    assert "expected an HTTP request" in json.loads(body)["reason"]
    await until_idle(proxy)


async def test_a_body_that_stops_coming_is_a_408(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(swallow)), timeouts=Timeouts(body=0.05))
    status, _, body = parts(await talk(port, CHUNKED + b"3\r\nabc\r\n"))
    assert (status, json.loads(body)["reason"]) == (408, "expected more of the request body, got no data for 0.05 s")
    await until_idle(proxy)


async def test_a_client_that_goes_while_a_connection_is_opened_leaves_nothing_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    going = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, _, _ = await read_request(reader)
        asked.append(line)
        writer.write(OK)
        await reader.read()

    proxy, port = await bench.edge(plain(await bench.start(script)))
    opening = proxy.open

    async def slowly(target, timeout):
        await going.wait()
        return await opening(target, timeout)

    monkeypatch.setattr(next(iter(proxy.pools.values())), "_opener", slowly)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
    await until(lambda: any(row["active"] for row in proxy._rows()))
    writer.transport.abort()
    await until(lambda: not proxy._clients)
    going.set()
    await until_idle(proxy)
    assert asked == []
    assert parts(await talk(port, GET))[0] == 200


async def test_an_origin_that_does_not_read_is_a_504_and_blamed(bench: Bench) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # StreamWriter.transport is typed as write-only
        await asyncio.sleep(2)  # ten times the edge's response time-out of 0.2 s

    origin = await bench.start(deaf)
    proxy, port = await bench.edge(plain(origin), timeouts=Timeouts(response=0.2))
    size = 64 << 20
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
    async with asyncio.timeout(10):
        status, _, body = parts(await reader.readuntil(b"}\n"))
    writer.transport.abort()
    assert (status, json.loads(body)["upstream"]) == (504, f"http://127.0.0.1:{origin}")
    await until_idle(proxy)


async def test_a_slow_upload_is_not_the_origins_fault(bench: Bench) -> None:
    _, port = await bench.edge(plain(await bench.start(replying(OK))), timeouts=Timeouts(response=0.1))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        CHUNKED + b"%x\r\n%b\r\n" % (BODY_BUFFER, bytes(BODY_BUFFER))
    )  # fills the edge's body buffer; further data is forwarded as it arrives
    for _ in range(4):
        await asyncio.sleep(0.06)  # one pause is shorter than the response time-out, four are longer
        writer.write(b"1\r\na\r\n")
    writer.write(b"0\r\n\r\n")
    assert parts(await asyncio.wait_for(reader.readuntil(b"ok"), 5))[0] == 200
    writer.close()


async def test_an_answer_before_the_end_of_the_request_closes_the_connection(bench: Bench) -> None:
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch")
        await writer.drain()
        await reader.read()

    proxy, port = await bench.edge(plain(await bench.start(hasty)))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: 50000000\r\n\r\n" + bytes(BODY_BUFFER))
    answer = await asyncio.wait_for(reader.readuntil(b"much"), 5)
    # The client continues to send, the edge reads, and the client sees a clean close instead of a reset.
    for _ in range(20):
        writer.write(bytes(500_000))
        await asyncio.sleep(0)  # lets the event loop send the data
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    assert parts(answer)[0] == 413
    await until_idle(proxy)


async def test_a_client_that_never_stops_sending_is_cut_off(bench: Bench) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))), timeouts=Timeouts(linger=0.1))
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/2.7\r\n\r\n")
    await until(lambda: proxy._clients)
    await until(lambda: not proxy._clients)
    writer.close()


async def test_trailers_do_not_become_fields_of_the_head(bench: Bench) -> None:
    seen: list[dict[str, str]] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, fields, _ = await read_request(reader)
            seen.append(fields)
            writer.write(OK)

    proxy, port = await bench.edge(plain(await bench.start(script)), limits=Limits(per_target=1))
    request = (
        b"POST / HTTP/1.1\r\nHost: x.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\nX-Admin: yes\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n"
    )
    assert parts(await talk(port, request))[0] == 200
    (fields,) = seen
    assert "x-admin" not in fields
    assert fields["x-forwarded-for"] == "127.0.0.1"
    await until_idle(proxy)


async def test_an_error_to_head_has_no_body_that_looks_like_the_next_response(bench: Bench) -> None:
    _, port = await bench.edge(plain(1))
    head = b"HEAD / HTTP/1.1\r\nHost: x.test\r\n\r\n"
    answer = await talk(port, head + GET)
    first, _, rest = answer.partition(b"\r\n\r\n")
    assert b" 502 " in first
    assert rest.startswith(b"HTTP/1.1 502 ")


async def test_the_authority_of_an_absolute_target_overrides_host(bench: Bench) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, fields, _ = await read_request(reader)
        seen.append((line, fields))
        writer.write(OK)

    _, port = await bench.edge(plain(await bench.start(script)))
    await talk(port, GET.replace(b"GET /", b"GET http://far.example.com/a?b"))
    ((line, fields),) = seen
    assert line == "GET /a?b HTTP/1.1"
    assert fields["host"] == fields["x-forwarded-host"] == "far.example.com"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="length-and-coding"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", id="two-lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok", id="odd-length"),
    ],
)  # fmt: skip
async def test_a_response_that_could_be_read_in_two_ways_is_a_502(bench: Bench, reply: bytes) -> None:
    _, port = await bench.edge(plain(await bench.start(replying(reply))))
    assert parts(await talk(port, GET))[0] == 502
