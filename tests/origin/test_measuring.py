"""Tests for resources of known cost, and for the connection data in `/whoami`."""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest

from origin.application import Options, Parts, build, request_counter
from origin.key_exchange import Groups, group_in
from origin.measuring import CPU_WAITING
from origin.representations import SMALL
from telemetry import Telemetry
from tests.acme_server.conftest import site
from tests.origin.conftest import Client
from tests.peers import Papers, papers
from theory.slow_start import MSS

__all__ = ["papers"]


async def test_a_range_of_bytes_is_the_same_as_in_the_whole(ask: Client) -> None:
    whole = (await ask("GET", "/bytes/200000")).body
    for first, last in ((0, 0), (65_535, 65_536), (131_071, 199_999), (255, 256)):
        part = await ask("GET", "/bytes/200000", range=f"bytes={first}-{last}")
        assert (part.status, part.body) == (206, whole[first : last + 1])
    assert (await ask("GET", "/bytes/200000", range="bytes=5-", if_range='"bytes-9"')).body == whole
    assert (await ask("GET", "/bytes/200000", if_none_match='"bytes-200000"')).status == 304
    assert (await ask("GET", "/bytes/5", range="bytes=9-")).fields["content-range"] == "bytes */5"


async def test_a_small_response_is_sent_in_one_segment(ask: Client) -> None:
    host, _, port = ask.base.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /bytes/{SMALL} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    first = await reader.read(1 << 16)
    writer.close()
    await writer.wait_closed()
    head, _, body = first.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(body) == SMALL
    assert len(first) <= MSS


async def test_cpu_time_is_used_while_other_requests_are_served(ask: Client) -> None:
    burning = asyncio.create_task(ask("GET", "/cpu/300"))
    await asyncio.sleep(0.02)  # gives the first request time to start using the CPU
    began = time.perf_counter()
    assert (await ask("GET", "/items/syn")).status == 200
    assert time.perf_counter() - began < 0.25
    assert 300 <= (await burning).json["burned_ms"] < 320
    assert (await ask("GET", "/cpu/1001")).status == 400


async def test_requests_for_cpu_time_wait_in_a_bounded_queue(ask: Client) -> None:
    answers = await asyncio.gather(*(ask("GET", "/cpu/20") for _ in range(CPU_WAITING + 4)))
    refused = [each for each in answers if each.status == 503]
    assert len(refused) == 4
    assert {each.fields["retry-after"] for each in refused} == {"1"}


@pytest.mark.parametrize(("rate", "size", "seconds"), [(2_000, 400, 0.2), (1_000_000, 300_000, 0.3)])
async def test_slow_transfers_take_as_long_as_asked(ask: Client, rate: int, size: int, seconds: float) -> None:
    began = time.perf_counter()
    answer = await ask("GET", f"/slow-write/{rate}/{size}")
    assert len(answer.body) == size
    assert seconds - 0.06 <= time.perf_counter() - began < seconds + 0.5
    answer = await ask("POST", f"/slow-read/{rate}", b"x" * size)
    assert answer.json["read"] == size
    assert seconds * 1000 - 1 <= answer.json["took_ms"] < seconds * 1000 + 500


async def test_a_slow_reader_lets_tcp_stop_the_sender(ask: Client) -> None:
    port = int(ask.base.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.transport.set_write_buffer_limits(0)
    writer.write(b"POST /slow-read/1000 HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
    sent = 0
    with contextlib.suppress(TimeoutError):
        while True:
            writer.write(bytes(65_536))
            await asyncio.wait_for(writer.drain(), 0.3)
            sent += 65_536
    assert sent < 50_000_000
    writer.transport.abort()


@pytest.mark.parametrize(
    "path", ["/slow-write/0/1", "/slow-write/1/121", "/slow-write/x/1", "/events?count=1001", "/events?interval=-1"]
)
async def test_what_would_take_too_long_is_refused(ask: Client, path: str) -> None:
    assert (await ask("GET", path)).status == 400


async def test_events_are_numbered_and_end(ask: Client) -> None:
    blocks = (await ask("GET", "/events?count=3&interval=1")).body.decode().split("\n\n")
    assert [block.split("\n")[0] for block in blocks] == ["id: 1", "id: 2", "id: 3", ""]


async def test_echo_wants_a_handshake_and_closes_on_large_messages(ask: Client) -> None:
    answer = await ask("GET", "/echo")
    assert (answer.status, answer.fields["upgrade"]) == (426, "websocket")
    async with ask.http.ws_connect(f"{ask.base}/echo", max_msg_size=0) as socket:
        await socket.send_bytes(bytes(1 << 20))
        assert len((await socket.receive()).data) == 1 << 20
        await socket.send_bytes(bytes((1 << 20) + 1))
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_server_that_stops_ends_streams_and_sockets() -> None:
    application = build(Options("a", "news"), request_counter(Telemetry("origin")), mutual=False)
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        async with site(application) as port:
            socket = await stack.enter_async_context(http.ws_connect(f"http://127.0.0.1:{port}/echo"))
            events = await stack.enter_async_context(http.get(f"http://127.0.0.1:{port}/events?interval=60000"))
            await events.content.readline()
            closing = asyncio.create_task(socket.receive())
            began = time.perf_counter()
        assert time.perf_counter() - began < 1
        assert (await closing).data == aiohttp.WSCloseCode.GOING_AWAY
        assert (await events.content.read()).startswith(b"data: ")


# --- whoami -----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def watched(context: ssl.SSLContext) -> AsyncIterator[str]:
    groups = Groups()
    groups.watch(context)
    application = build(
        Options("a", "news"), request_counter(Telemetry("origin")), mutual=False, parts=Parts(groups=groups)
    )
    async with site(application, ssl_context=context) as port:
        yield f"https://127.0.0.1:{port}/whoami"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("switched", [False, True], ids=["one-context", "sni-callback"])
async def test_whoami_knows_the_group_that_the_server_was_restricted_to(
    papers: Papers, version: ssl.TLSVersion, *, switched: bool
) -> None:
    outer, inner = papers.server("localhost.test", version=version), papers.server("localhost.test", version=version)
    outer.set_ecdh_curve("secp384r1")
    if switched:
        outer.sni_callback = lambda connection, _name, _context: setattr(connection, "context", inner)
    async with watched(outer) as url, aiohttp.ClientSession() as http:
        for _ in range(2):  # the second connection must not get the group of the first
            async with http.get(url, ssl=papers.client(), server_hostname="localhost.test") as response:
                body = await response.json()
    assert body["tls"]["version"] == version.name.replace("_", ".")
    # OpenSSL uses the groups of the original context, even if the SNI callback switches to another context.
    assert body["tls"]["group"] == "secp384r1"
    assert body["tcp"]["state"] == "ESTABLISHED"
    assert body["tcp"]["congestion_window"] >= 1
    assert json.dumps(body)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", None),
        (b"\x02", None),
        (b"\x02\x00\x00\x26\x03\x03" + bytes(32) + b"\x00\x13\x01\x00", None),
        (b"\x0c\x00\x00\x04\x03\x00\x1d\x20", 29),
        (b"\x0c\x00\x00\x04\x01\x00\x1d\x20", None),
        (b"\x02\x00\x00\x30\x03\x03" + bytes(32) + b"\x00\x13\x01\x00\x00\x08\x00\x33\x00\x04\x11\xec\x00\x00", 4588),
    ],
    ids=["empty", "cut", "no-extensions", "tls-1.2", "explicit-curve", "hybrid"],
)
def test_the_group_in_a_handshake_message(message: bytes, expected: int | None) -> None:
    assert group_in(message) == expected
