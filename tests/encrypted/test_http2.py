"""Tests for DNS over HTTPS on HTTP/2, with the h2 library as the client on real TLS connections."""

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

import serving
from dnsmessage import Name, encode_query, error_response
from encrypted import http2
from encrypted.http2 import MAX_CONTROL, MAX_RESETS, Http2
from tests.peers import Papers

NAME = "resolver.example.com"
QUERY = encode_query(0, Name.from_text("www.example.com."), 1, recursive=True)


def get(query: bytes = QUERY, method: str = "GET") -> list[tuple[str, str]]:
    path = "/dns-query?dns=" + base64.urlsafe_b64encode(query).decode().rstrip("=")
    return [(":method", method), (":scheme", "https"), (":authority", NAME), (":path", path)]


POST = [*get(method="POST")[:3], (":path", "/dns-query"), ("content-type", "application/dns-message")]


class Client:
    """An HTTP/2 client connection; `fields` and `bodies` are keyed by stream, `ended` holds the completed streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.fields: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.closed: int | None = None
        self.acknowledges = True
        self.h2.initiate_connection()
        self.flush()

    def ask(self, fields: list[tuple[str, str]], body: bytes | None = None) -> int:
        number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(number, fields, end_stream=body is None)
        if body is not None:
            self.h2.send_data(number, body, end_stream=True)
        self.flush()
        return number

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not fact():
                data = await self.reader.read(65_536)
                if not data:
                    assert fact(), "the server closed the connection"
                    return
                for event in self.h2.receive_data(data):
                    self._note(event)
                self.flush()

    def _note(self, event: Any) -> None:
        match event:
            case h2.events.ResponseReceived():
                self.fields[event.stream_id] = {str(name): str(value) for name, value in event.headers}
            case h2.events.DataReceived():
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                if self.acknowledges:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self.ended.add(event.stream_id)
            case h2.events.StreamReset():
                self.reset.add(event.stream_id)
            case h2.events.ConnectionTerminated():
                self.closed = event.error_code

    async def response(self, fields: list[tuple[str, str]], body: bytes | None = None) -> tuple[dict[str, str], bytes]:
        number = self.ask(fields, body)
        await self.until(lambda: number in self.ended)
        return self.fields[number], self.bodies.get(number, b"")


class Site:
    """A DNS over HTTPS service with the handler `handle`."""

    def __init__(self, stack: contextlib.AsyncExitStack, papers: Papers) -> None:
        self.stack, self.papers = stack, papers
        self.handle: serving.Handler = lambda query, _client, _transport: error_response(query, 3)

    async def start(self) -> None:
        context = self.papers.server(NAME)
        context.set_alpn_protocols(["h2"])
        handler: serving.Handler = lambda *query: self.handle(*query)  # noqa: E731, PLW0108 - looks up `handle` at each call, because tests replace it
        self.service = await serving.start_tls(("127.0.0.1", 0), handler, context, make=Http2, transport="https")
        self.stack.push_async_callback(self.service.close)

    async def connect(self, alpn: str = "h2") -> Client:
        context = self.papers.client()
        context.set_alpn_protocols([alpn])
        reader, writer = await asyncio.open_connection(*self.service.address, ssl=context, server_hostname=NAME)
        self.stack.push_async_callback(_closed, writer)
        return Client(reader, writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.fixture
async def site(papers: Papers) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:
        made = Site(stack, papers)
        await made.start()
        yield made


async def test_get_and_post_give_the_same_response_and_head_its_fields(site: Site) -> None:
    client = await site.connect()
    got = await client.response(get())
    assert got == await client.response(POST, QUERY)
    assert got[1] == error_response(QUERY, 3)
    assert got[0] == {
        ":status": "200",
        "content-type": "application/dns-message",
        "cache-control": "max-age=0",
        "content-length": str(len(got[1])),
    }
    assert await client.response(get(method="HEAD")) == (got[0], b"")


async def test_the_handler_sees_the_clients_address_and_the_transport(site: Site) -> None:
    seen: list[tuple[str, str]] = []

    def handle(query: bytes, client: tuple[str, int], transport: str) -> bytes:
        seen.append((client[0], transport))
        return error_response(query, 3)

    site.handle = handle
    await (await site.connect()).response(get())
    assert seen == [("127.0.0.1", "https")]


async def test_a_slow_answer_delays_no_other(site: Site) -> None:
    gate = asyncio.Event()

    async def late(query: bytes) -> bytes:
        await gate.wait()
        return error_response(query, 3)

    slow = encode_query(1, Name.from_text("slow."), 1)
    site.handle = lambda query, _client, _transport: late(query) if query == slow else error_response(query, 3)
    client = await site.connect()
    first, second = client.ask(get(slow)), client.ask(get())
    await client.until(lambda: second in client.ended)
    assert first not in client.ended
    gate.set()
    await client.until(lambda: first in client.ended)


def _raise(query: bytes, _client: object, _transport: object) -> bytes:
    raise ValueError("a fault in the handler")


@pytest.mark.parametrize(
    ("fields", "body", "handle", "status"),
    [
        ([*get()[:3], (":path", "/")], None, None, "404"),
        ([*get(method="DELETE")[:3], (":path", "/dns-query")], None, None, "405"),
        (POST, b"x" * 5000, None, "413"),
        (POST[:-1], QUERY, None, "415"),
        (get(b"short"), None, None, "400"),
        (get(), None, lambda *_: None, "503"),
        (get(), None, _raise, "500"),
    ],
    ids=["path", "method", "size", "type", "short", "dropped", "handler"],
)
async def test_an_error_is_a_status_and_the_connection_stays(site: Site, fields, body, handle, status: str) -> None:
    site.handle, works = handle or site.handle, site.handle
    client = await site.connect()
    got, text = await client.response(fields, body)
    assert got[":status"] == status
    assert got["cache-control"] == "no-store"
    assert text
    site.handle = works
    assert (await client.response(get()))[0][":status"] == "200"


@pytest.mark.parametrize("size", [60_000, 70_000, 300_000])
async def test_a_large_body_is_refused_with_413_and_read_to_its_end(site: Site, size: int) -> None:
    client = await site.connect()
    number = client.h2.get_next_available_stream_id()
    client.h2.send_headers(number, POST)
    while size:
        await client.until(lambda: client.h2.local_flow_control_window(number) > 0)
        part = min(size, client.h2.local_flow_control_window(number), client.h2.max_outbound_frame_size)
        size -= part
        client.h2.send_data(number, bytes(part), end_stream=not size)
        client.flush()
    await client.until(lambda: number in client.ended)
    assert client.fields[number][":status"] == "413"
    assert (await client.response(get()))[0][":status"] == "200"
    assert number not in client.reset


async def test_a_body_that_never_ends_is_reset_after_the_413(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encrypted.http2.MAX_DISCARDED", 100_000)
    client = await site.connect()
    number, sent = client.h2.get_next_available_stream_id(), 0
    client.h2.send_headers(number, POST)
    while number not in client.reset:
        await client.until(lambda: number in client.reset or client.h2.local_flow_control_window(number) > 0)
        if number not in client.reset:
            part = min(client.h2.local_flow_control_window(number), client.h2.max_outbound_frame_size)
            client.h2.send_data(number, bytes(part))
            client.flush()
            sent += part
    assert client.fields[number][":status"] == "413"
    assert 100_000 < sent < 400_000
    assert (await client.response(get()))[0][":status"] == "200"


async def test_a_response_larger_than_the_clients_window_waits_for_it(site: Site) -> None:
    wire = error_response(QUERY, 0) + bytes(60_000)
    site.handle = lambda *_: wire
    client = await site.connect()
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    client.acknowledges = False
    number = client.ask(get())
    await client.until(lambda: len(client.bodies.get(number, b"")) == 1000)
    client.h2.increment_flow_control_window(65_535, number)
    client.flush()
    await client.until(lambda: number in client.ended)
    assert client.bodies[number] == wire


@pytest.mark.parametrize("how", ["resets", "pings"])
async def test_a_client_that_floods_is_sent_away(site: Site, how: str) -> None:
    client = await site.connect()
    for _ in range(MAX_RESETS + 1 if how == "resets" else MAX_CONTROL + 1):
        if how == "resets":
            client.h2.reset_stream(client.ask(get()))
        else:
            client.h2.ping(b"12345678")
        client.flush()
    with contextlib.suppress(OSError):
        await client.until(lambda: client.closed is not None)
        assert client.closed == 11  # ENHANCE_YOUR_CALM
    assert (await (await site.connect()).response(get()))[0][":status"] == "200"


async def test_more_requests_than_a_turn_are_all_answered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2, "TURN", 50)
    client = await site.connect()
    numbers = {client.ask(POST, QUERY) for _ in range(100)}
    await client.until(lambda: client.ended == numbers)


async def test_pending_answers_are_sent_when_the_server_stops(site: Site) -> None:
    gate = asyncio.Event()

    async def late(query: bytes) -> bytes:
        await gate.wait()
        return error_response(query, 3)

    site.handle = lambda query, _client, _transport: late(query)
    client = await site.connect()
    number = client.ask(get())
    async with asyncio.timeout(5):
        while not any(each.pending for each in site.service._open):  # noqa: ASYNC110 - polls: no event signals that a query has arrived
            await asyncio.sleep(0.001)  # polling interval
    closing = asyncio.create_task(site.service.close())
    await asyncio.sleep(0)  # let `close` run until it waits for the pending reply
    gate.set()
    await client.until(lambda: number in client.ended)
    await client.until(lambda: client.closed == 0)
    await closing


@pytest.mark.parametrize("alpn", ["http/1.1", "dot"])
async def test_other_protocols_are_refused(site: Site, alpn: str) -> None:
    client = await site.connect(alpn)
    assert (await client.reader.read()).startswith(b"HTTP/1.1 505 ")


@pytest.mark.parametrize(
    "junk", [b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 40_000], ids=["zeros", "http1", "ones"]
)
async def test_junk_ends_its_connection_only(site: Site, junk: bytes) -> None:
    client = await site.connect()
    client.writer.write(junk)
    with contextlib.suppress(OSError):
        async with asyncio.timeout(3):
            await client.reader.read()
    assert (await (await site.connect()).response(get()))[0][":status"] == "200"


FRAMES = st.builds(
    lambda kind, flags, stream, payload: (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    ),
    st.integers(0, 12),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]),
    st.one_of(st.binary(max_size=60), st.just(b"\x82\x87\x84"), st.just(b"\x83\x87\x04\x0a/dns-query")),
)


@settings(max_examples=100)
@given(st.lists(st.one_of(FRAMES, st.binary(max_size=40)), max_size=12), st.integers(1, 300))
def test_no_frames_cause_an_error_outside_their_connection(frames: list[bytes], step: int) -> None:
    def make(service: serving.Connections) -> Http2:
        connection = Http2(service)
        connection.negotiated("h2")
        return connection

    async def run() -> None:
        errors: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: errors.append(context))
        service = serving.Connections(make, lambda query, _client, _transport: error_response(query, 3), "https")
        ours, theirs = socket.socketpair()
        await loop.connect_accepted_socket(service._accept, ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"".join(frames)
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
            await asyncio.sleep(0)  # let the server read
        await service.close()
        with contextlib.suppress(OSError):
            await reader.read()
        await _closed(writer)
        assert errors == []

    asyncio.run(run())
