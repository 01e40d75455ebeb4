"""Tests for the stub over TCP and TLS: reuse, order, reconnection, authentication (RFC 7766, RFC 7858, RFC 8310)."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import dns.message
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

import serving
from encrypted.http2 import Http2
from serving import Connections
from stub import AsyncStub, ServerFailure, Stub, Timeout, Transport, https, opportunistic, strict
from stub.channel import Channel
from stub.message import query
from stub.transport import TCP, UDP
from tests.peers import Papers

NAME = "resolver.example.com"


def honest(wire: bytes) -> bytes:
    asked = dns.message.from_wire(wire)
    reply = dns.message.make_response(asked)
    last = asked.question[0].name.labels[0].decode().removeprefix("h")
    reply.answer = [dns.rrset.from_text(asked.question[0].name, 30, "IN", "A", f"192.0.2.{last}")]
    return reply.to_wire()


class Site:
    """A name server over UDP, TCP and TLS that records the queries it receives."""

    def __init__(self, papers: Papers) -> None:
        self.papers = papers
        self.asked: list[tuple[str, bytes]] = []
        self.answer: Callable[[bytes], object] = honest

    def handle(self, wire: bytes, _client: object, transport: str):
        self.asked.append((transport, wire))
        return self.answer(wire)

    async def start(self, idle: float = 5.0) -> None:
        context = self.papers.server(NAME)
        self.listener = await serving.start(("127.0.0.1", 0), self.handle, tcp_idle=idle)
        self.tls: Connections = await serving.start_tls(("127.0.0.1", 0), self.handle, context, idle=idle)
        context = self.papers.server(NAME)
        context.set_alpn_protocols(["h2"])
        self.https: Connections = await serving.start_tls(
            ("127.0.0.1", 0), self.handle, context, make=Http2, transport="https", idle=idle
        )

    async def close(self) -> None:
        await self.listener.close()
        await self.tls.close()
        if hasattr(self, "https"):
            await self.https.close()

    def at(self, transport: Transport) -> list[tuple[str, int]]:
        if transport.kind == "https":
            return [self.https.address]
        return [self.tls.address if transport.kind == "tls" else self.listener.address]


@pytest.fixture
async def site(papers: Papers) -> AsyncIterator[Site]:
    made = Site(papers)
    await made.start()
    yield made
    await made.close()


@pytest.fixture(params=["tcp", "strict", "opportunistic", "https"])
def transport(request: pytest.FixtureRequest, papers: Papers) -> Transport:
    made: dict[str, Callable[[], Transport]] = {
        "tcp": lambda: TCP, "strict": lambda: strict(NAME, papers.trust), "opportunistic": opportunistic,
        "https": lambda: https(NAME, papers.trust),
    }  # fmt: skip
    return made[request.param]()


def stubs(servers: list[tuple[str, int]], **options: Any) -> tuple[AsyncStub, Stub]:
    return AsyncStub(servers, **options), Stub(servers, **options)


def open_connections(site: Site) -> int:
    return len(site.tls) + len(site.listener.streams) + len(site.https)


async def test_one_connection_carries_all_queries(site: Site, transport: Transport) -> None:
    def blocking() -> None:
        with Stub(site.at(transport), transport=transport) as stub:
            sizes = []
            for i in range(5):
                answer = stub.resolve(f"h{i}.example")
                assert (answer.rdata, answer.transport) == ((f"192.0.2.{i}",), transport.kind)
                sizes.append(answer.bytes_sent)
                setup = {"tcp": 1, "tls": 2, "https": 2}[transport.kind] if i == 0 else 0
                assert answer.round_trips == 1 + setup
            assert (sizes[0] > 3 * sizes[1]) == (transport.kind != "tcp")  # the first size includes the handshake

    await asyncio.to_thread(blocking)
    stub = AsyncStub(site.at(transport), transport=transport)
    answers = await asyncio.gather(*(stub.resolve(f"h{i}.example") for i in range(200)))
    assert [answer.rdata[0] for answer in answers] == [f"192.0.2.{i}" for i in range(200)]
    assert open_connections(site) == 1
    await stub.close()
    assert {name for name, _ in site.asked} == {transport.kind}


async def test_a_slow_answer_delays_no_other(site: Site, transport: Transport) -> None:
    gate = asyncio.Event()

    async def late(wire: bytes) -> bytes:
        await gate.wait()
        return honest(wire)

    site.answer = lambda wire: late(wire) if b"h1" in wire else honest(wire)
    stub = AsyncStub(site.at(transport), transport=transport)
    slow = asyncio.create_task(stub.resolve("h1.example"))
    assert (await stub.resolve("h2.example")).rdata == ("192.0.2.2",)
    assert not slow.done()
    gate.set()
    assert (await slow).rdata == ("192.0.2.1",)
    await stub.close()


async def test_a_connection_that_the_server_has_closed_is_opened_again(site: Site, transport: Transport) -> None:
    stub, blocking = stubs(site.at(transport), transport=transport)
    for i in (1, 2):
        assert (await stub.resolve(f"h{i}.example")).rdata == (f"192.0.2.{i}",)
        assert (await asyncio.to_thread(blocking.resolve, f"h{i}.example")).rdata == (f"192.0.2.{i}",)
        for connection in (*site.tls._open, *site.listener.streams._open, *site.https._open):
            connection.close()
    await stub.close()
    blocking.close()


async def test_silence_is_a_time_out(site: Site, transport: Transport) -> None:
    async def never(_wire: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    site.answer = never
    options = {"timeout": 0.1, "attempts": 1}
    stub, blocking = stubs(site.at(transport), transport=transport, **options)
    with pytest.raises(Timeout):
        await stub.resolve("h1.example")
    with pytest.raises(Timeout):
        await asyncio.to_thread(blocking.resolve, "h1.example")
    await stub.close()
    blocking.close()


@pytest.mark.parametrize("wrong", ["name", "protocol", "answer", "refusal"])
async def test_a_server_that_does_not_speak_dns_over_https_is_named_with_the_reason(
    site: Site, papers: Papers, wrong: str
) -> None:
    site.answer = lambda wire: None if wrong == "refusal" else honest(query(1, "h2.example", "A"))
    address = site.tls.address if wrong == "protocol" else site.https.address
    transport = https("other.example.com" if wrong == "name" else NAME, papers.trust)
    reason = {
        "name": "TLS to .* failed: Hostname mismatch", "protocol": "the server does not speak HTTP/2",
        "answer": "the server sent no reply to the query", "refusal": "the server answered with HTTP status 503",
    }[wrong]  # fmt: skip
    stub, blocking = stubs([address], transport=transport)
    with pytest.raises(ServerFailure, match=reason):
        await stub.resolve("h1.example")
    with pytest.raises(ServerFailure, match=reason):
        await asyncio.to_thread(blocking.resolve, "h1.example")
    await stub.close()
    blocking.close()


@pytest.mark.parametrize("wrong", ["name", "root", "expired"])
async def test_strict_tls_sends_no_query_to_a_server_without_proof(papers: Papers, wrong: str, tmp_path) -> None:
    site = Site(papers)
    site.listener = await serving.start(("127.0.0.1", 0), site.handle)
    context = papers.server(NAME, begin=-60.0, end=-30.0 if wrong == "expired" else 600.0)
    site.tls = await serving.start_tls(("127.0.0.1", 0), site.handle, context)
    trust = Papers(tmp_path).trust if wrong == "root" else papers.trust
    transport = strict("other.example.com" if wrong == "name" else NAME, trust)
    try:
        for resolve in (
            AsyncStub(site.at(transport), transport=transport).resolve("h1.example"),
            asyncio.to_thread(Stub(site.at(transport), transport=transport).resolve, "h1.example"),
        ):
            with pytest.raises(ServerFailure, match=r"TLS to .* failed: "):
                await resolve
        assert site.asked == []
        assert (await AsyncStub(site.at(transport), transport=opportunistic()).resolve("h1.example")).transport == "tls"
    finally:
        await site.close()


async def test_opportunistic_tls_falls_back_to_udp(papers: Papers) -> None:
    site = Site(papers)
    await site.start()
    transport = opportunistic()
    stub, blocking = stubs([site.listener.address], transport=transport, timeout=1.0)
    site.answer = lambda wire: honest(wire) if site.asked[-1][0] == "udp" else None
    try:
        for i in (1, 2):  # for both queries, TLS fails because the listener does not support it
            assert (await stub.resolve(f"h{i}.example")).transport == "udp"
            assert (await asyncio.to_thread(blocking.resolve, f"h{i}.example")).transport == "udp"
        assert {name for name, _ in site.asked} <= {"udp", "tcp"}
    finally:
        await stub.close()
        await site.close()


async def test_queries_over_tls_are_padded(site: Site, papers: Papers) -> None:
    for pads in (True, False):
        transport = strict(NAME, papers.trust, pads=pads)
        stub = AsyncStub(site.at(transport), transport=transport)
        await stub.resolve("h1.example")
        await stub.close()
    assert [len(wire) % 128 for _, wire in site.asked] == [0, len(site.asked[1][1])]


async def test_over_ipv6(papers: Papers) -> None:
    site = Site(papers)
    site.listener = await serving.start(("::1", 0), site.handle)
    site.tls = await serving.start_tls(("::1", 0), site.handle, papers.server(NAME))
    try:
        for transport in (UDP, TCP, strict(NAME, papers.trust)):
            stub, blocking = stubs(site.at(transport), transport=transport)
            assert (await stub.resolve("h1.example")).rdata == ("192.0.2.1",)
            assert (await asyncio.to_thread(blocking.resolve, "h2.example")).rdata == ("192.0.2.2",)
            await stub.close()
            blocking.close()
    finally:
        await site.close()


@given(st.lists(st.binary(max_size=40), max_size=10), st.integers(1, 50), st.randoms())
def test_a_channel_finds_its_replies_among_junk_in_any_order(junk: list[bytes], step: int, rng) -> None:
    channel = Channel(TCP, "127.0.0.1")
    wires = [query(7, f"h{i}.example", "A") for i in range(5)]  # all with the same ID
    idents = [channel.submit(wire) for wire in wires]
    assert len(set(idents)) == 5
    data, queries = channel.to_send(), []
    while data:
        size = int.from_bytes(data[:2], "big")
        queries.append(data[2 : 2 + size])
        data = data[2 + size :]
    messages = [honest(each) for each in queries] + junk
    rng.shuffle(messages)
    stream = b"".join(len(each).to_bytes(2, "big") + each for each in messages)
    replies: dict[int, bytes] = {}
    for at in range(0, len(stream), step):
        replies |= channel.receive(stream[at : at + step])
    assert replies == {ident: honest(each) for ident, each in zip(idents, queries, strict=True)}


async def test_junk_instead_of_tls_is_an_error_of_this_server_only(papers: Papers) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read(10)
            writer.write(b"\xff" * 100)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(script, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]
    try:
        with pytest.raises(ServerFailure, match="TLS to"):
            await AsyncStub([address], transport=strict(NAME, papers.trust)).resolve("h1.example")
    finally:
        server.close()


def test_the_context_of_strict_tls_verifies() -> None:
    context = strict(NAME).context
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
