"""Tests for DNS over TCP and TLS: framing, order, limits, time-outs, EDNS options, certificates."""

import asyncio
import contextlib
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import dns.edns
import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import serving
from serving import Connections
from serving.connections import PAUSE
from serving.streams import MAX_PIPELINED, TURN, Stream
from tests.peers import Papers
from tlsreload import CertificateFiles, ReloadingContext

NAME = "resolver.example.com"


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("!H", len(each)) + each for each in messages)


async def read(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(size)


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not fact():  # noqa: ASYNC110 - polls: no event signals a change of socket state
            await asyncio.sleep(0.001)  # polling interval


class Site:
    """A service over TCP or TLS, and its client connections; all are closed when the exit stack is closed."""

    def __init__(self, stack: contextlib.AsyncExitStack, papers: Papers, transport: str) -> None:
        self.stack, self.papers, self.transport = stack, papers, transport

    async def start(self, handler: serving.Handler, idle: float = 5.0) -> Connections:
        if self.transport == "tls":
            self.streams = await serving.start_tls(("127.0.0.1", 0), handler, self.papers.server(NAME), idle=idle)
            self.stack.push_async_callback(self.streams.close)
        else:
            listener = await serving.start(("127.0.0.1", 0), handler, tcp_idle=idle)
            self.streams = listener.streams
            self.stack.push_async_callback(listener.close)
        return self.streams

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self.papers.client() if self.transport == "tls" else None
        name = NAME if context else None
        reader, writer = await asyncio.open_connection(*self.streams.address, ssl=context, server_hostname=name)
        self.stack.push_async_callback(_closed, writer)
        return reader, writer


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.fixture(params=["tcp", "tls"])
async def site(request: pytest.FixtureRequest, papers: Papers) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:
        yield Site(stack, papers, request.param)


async def test_pipelined_queries_are_answered_and_a_slow_one_delays_no_other(site: Site) -> None:
    gate = asyncio.Event()

    async def late(query: bytes) -> bytes:
        await gate.wait()
        return query

    await site.start(lambda query, _client, transport: late(query) if query == b"slow" else query + transport.encode())
    reader, writer = await site.connect()
    writer.write(framed(b"slow", b"one", b"two"))
    name = site.transport.encode()
    assert [await read(reader), await read(reader)] == [b"one" + name, b"two" + name]
    gate.set()
    assert await read(reader) == b"slow"


async def test_more_queries_than_a_turn_in_one_write_are_all_answered(site: Site) -> None:
    await site.start(lambda query, _client, _transport: query)
    reader, writer = await site.connect()
    queries = [struct.pack("!H", i) * 20 for i in range(5 * TURN + 3)]
    writer.write(framed(*queries))
    assert [await read(reader) for _ in queries] == queries


async def test_an_iterator_sends_several_messages_and_waits_for_a_slow_reader(site: Site) -> None:
    made = 0

    def transfer() -> Iterator[bytes]:
        nonlocal made
        for made in range(1, 301):
            yield bytes([made % 256]) * 60_000

    await site.start(lambda _query, _client, _transport: transfer())
    reader, writer = await site.connect()
    writer.write(framed(b"axfr"))
    await asyncio.sleep(0.2)  # time for the buffers to fill, because the client does not read
    assert made < 300
    assert [(await read(reader))[:1] for _ in range(300)] == [bytes([i % 256]) for i in range(1, 301)]


async def test_pending_answers_are_sent_when_the_server_stops(site: Site) -> None:
    gate = asyncio.Event()

    async def late(query: bytes) -> bytes:
        await gate.wait()
        return query

    streams = await site.start(lambda query, _client, _transport: late(query))
    reader, writer = await site.connect()
    writer.write(framed(b"late"))
    await until(lambda: any(stream.pending for stream in streams._open))
    closing = asyncio.create_task(streams.close())
    await asyncio.sleep(0)  # let `close` run until it waits for the pending replies
    gate.set()
    assert await read(reader) == b"late"
    assert await reader.read() == b""
    await closing
    assert len(streams) == 0


async def test_bytes_that_complete_no_query_do_not_keep_a_connection_open(site: Site) -> None:
    await site.start(lambda query, _client, _transport: query, idle=0.15)
    reader, writer = await site.connect()
    ended = asyncio.create_task(reader.read())
    async with asyncio.timeout(3):
        while not ended.done():
            writer.write(b"\xff")
            await asyncio.sleep(0.02)  # the client sends one byte every 20 ms until the server closes the connection
    with contextlib.suppress(ConnectionResetError):
        assert await ended == b""


async def test_an_idle_connection_makes_room_and_a_busy_one_does_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.connections.MAX_CONNECTIONS", 2)
    gate = asyncio.Event()

    async def late(query: bytes) -> bytes:
        await gate.wait()
        return query

    streams = await site.start(lambda query, _client, _transport: late(query) if query == b"slow" else query)
    busy, idle = await site.connect(), await site.connect()
    busy[1].write(framed(b"slow"))
    idle[1].write(framed(b"quick"))
    assert await read(idle[0]) == b"quick"
    third = await site.connect()
    third[1].write(framed(b"slow"))
    assert await idle[0].read() == b""
    await until(lambda: sum(len(stream.pending) for stream in streams._open) == 2)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await site.connect()
        writer.write(framed(b"no room"))
        assert await reader.read() == b""
    gate.set()
    assert [await read(busy[0]), await read(third[0])] == [b"slow", b"slow"]
    assert (streams.evicted, streams.rejected) == (1, 1)


async def test_a_client_that_never_reads_is_cut_off(site: Site) -> None:
    streams = await site.start(lambda query, _client, _transport: query, idle=0.3)
    _, writer = await site.connect()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(600):
        writer.write(framed(b"x" * 60_000))
    await until(lambda: not streams)


async def test_a_handler_that_raises_costs_its_connection_only(site: Site) -> None:
    def handle(query: bytes, _client, _transport) -> bytes:
        if query == b"bad":
            raise ValueError("a fault in the handler")
        return query

    await site.start(handle)
    (reader, writer), other = await site.connect(), await site.connect()
    writer.write(framed(b"good", b"bad", b"lost"))
    assert (await read(reader), await reader.read()) == (b"good", b"")
    other[1].write(framed(b"good"))
    assert await read(other[0]) == b"good"


async def test_the_reply_states_the_time_out_and_is_padded_only_where_it_is_encrypted(site: Site) -> None:
    def handle(query: bytes, _client, _transport) -> bytes:
        return dns.message.make_response(dns.message.from_wire(query), pad=0).to_wire()

    await site.start(handle, idle=5.0)
    reader, writer = await site.connect()
    keepalive, padding = (
        dns.edns.GenericOption(dns.edns.OptionType(code), bytes(20 * (code - 11))) for code in (11, 12)
    )
    options: list[dns.edns.Option] = [keepalive, padding]
    for wanted in (options, options[1:], [], None):
        query = dns.message.make_query("www.example.com", "A", use_edns=wanted is not None, options=wanted)
        writer.write(framed(query.to_wire()))
        wire = await read(reader)
        given = {option.otype: option.to_wire() for option in dns.message.from_wire(wire).options}
        assert given.get(11) == (b"\0\x32" if wanted == options else None)
        padded = bool(wanted) and site.transport == "tls"
        assert (12 in given, len(wire) % 468 == 0) == (padded, padded)


@settings(max_examples=60)
@given(
    messages=st.lists(st.binary(max_size=600), max_size=MAX_PIPELINED),
    cuts=st.lists(st.integers(1, 700), min_size=1, max_size=30),
)
def test_any_division_into_segments_gives_the_same_replies(messages: list[bytes], cuts: list[int]) -> None:
    async def run() -> None:
        streams = Connections(Stream, lambda query, _client, _transport: query, "tcp")
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(streams._accept, ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        data, at, count = framed(*messages), 0, 0
        while at < len(data):
            writer.write(data[at : at + cuts[count % len(cuts)]])
            at += cuts[count % len(cuts)]
            count += 1
            await asyncio.sleep(0)  # let the server read
        assert [await read(reader) for _ in messages] == messages
        await streams.close()
        assert await reader.read() == b""
        await _closed(writer)

    asyncio.run(run())


async def test_a_certificate_changes_without_a_lost_query(tmp_path: Path, papers: Papers) -> None:
    pem = tmp_path / "pair.pem"
    pem.write_bytes(papers.pair(NAME).read_bytes())
    certificates = ReloadingContext([CertificateFiles(pem, pem)], alpn=["dot"])
    streams = await serving.start_tls(("127.0.0.1", 0), lambda query, _client, _transport: query, certificates.context)
    serials = set()

    async def ask(count: int) -> None:
        for _ in range(count):
            context = papers.client()
            context.set_alpn_protocols(["dot"])
            reader, writer = await asyncio.open_connection(*streams.address, ssl=context, server_hostname=NAME)
            tls = writer.get_extra_info("ssl_object")
            serials.add(tls.getpeercert()["serialNumber"])
            assert tls.selected_alpn_protocol() == "dot"
            writer.write(framed(b"query"))
            assert await read(reader) == b"query"
            await _closed(writer)

    try:
        asking = [asyncio.create_task(ask(10)) for _ in range(4)]
        for _ in range(5):
            await asyncio.sleep(0.02)  # time for clients to connect before the next change
            pem.write_bytes(papers.pair(NAME).read_bytes())
            certificates.reload()
        await asyncio.gather(*asking)
    finally:
        await streams.close()
    assert len(serials) > 1


async def test_a_handshake_that_never_ends_is_closed(papers: Papers) -> None:
    streams = await serving.start_tls(("127.0.0.1", 0), lambda q, c, t: q, papers.server(NAME), idle=0.1)
    reader, writer = await asyncio.open_connection(*streams.address)
    try:
        assert await asyncio.wait_for(reader.read(), 2.0) == b""
        plain, writer_2 = await asyncio.open_connection(*streams.address)
        writer_2.write(framed(b"a query without TLS"))
        await asyncio.wait_for(plain.read(), 2.0)
        assert streams.failed_handshakes == 1
        await _closed(writer_2)
    finally:
        await _closed(writer)
        await streams.close()
    assert len(streams) == 0


@pytest.mark.parametrize("host", ["::1", "::"])
async def test_over_ipv6_udp_tcp_and_tls_answer_from_the_address_that_was_asked(papers: Papers, host: str) -> None:
    def handle(query: bytes, client, transport: str) -> bytes:
        return f"{client[0]} {transport}".encode()

    listener = await serving.start((host, 0), handle)
    streams = await serving.start_tls((host, 0), handle, papers.server(NAME))
    loop = asyncio.get_running_loop()
    context: ssl.SSLContext | None = None
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("::1", listener.address[1]))
            sock.send(b"query")
            assert await asyncio.wait_for(loop.sock_recv(sock, 100), 2.0) == b"::1 udp"
        for port, transport in ((listener.address[1], b"tcp"), (streams.address[1], b"tls")):
            context = papers.client() if transport == b"tls" else None
            reader, writer = await asyncio.open_connection(
                "::1", port, ssl=context, server_hostname=NAME if context else None
            )
            writer.write(framed(b"query"))
            assert await read(reader) == b"::1 " + transport
            await _closed(writer)
    finally:
        await listener.close()
        await streams.close()


async def test_accepted_connections_send_small_messages_at_once(papers: Papers) -> None:
    async with contextlib.AsyncExitStack() as stack:
        streams = await Site(stack, papers, "tcp").start(lambda q, _client, _transport: q)
        reader, writer = await asyncio.open_connection(*streams.address)
        writer.write(framed(bytes(12)))
        await read(reader)
        (connection,) = streams._open
        accepted = connection._transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()


async def test_without_free_descriptors_clients_wait_and_the_log_has_one_line(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    service = await site.start(lambda *_: None)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
        try:
            await asyncio.get_running_loop().sock_connect(client, service.address)
            await until(lambda: "accepting_paused" in caplog.text)
            await asyncio.sleep(2 * PAUSE)  # further attempts to accept fail during this time
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await until(lambda: len(service) == 1)
    assert caplog.text.count("accepting_paused") == 1
    assert "asyncio" not in {record.name for record in caplog.records}
