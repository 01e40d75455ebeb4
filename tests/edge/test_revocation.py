"""Tests for revoking the certificates of clients and origins while their connections are open."""

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from authority import Revoked, issue_crl
from edge import Limits, Target
from edge.proxy import Proxy
from renewal.revocation import Revocations
from tests.edge.conftest import GET, Bench, parts, plain, talk
from tests.edge.test_http2 import Http2Peer
from tests.edge.test_tls import resolve_here
from tests.peers import OK, Papers, read_request, replying
from tests.waiting import until

KEPT = GET.replace(b"Connection: close\r\n", b"")
UPGRADE = KEPT.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")


class Ca:
    """The revocations of the test CA; each call of `revoke` issues a new CRL."""

    def __init__(self, papers: Papers) -> None:
        self.revocations, self._papers = Revocations(), papers
        self._entries: list[Revoked] = []

    def revoke(self, proxy: Proxy, serial: str) -> None:
        now = time.time()
        self._entries.append(Revoked(int(serial, 16), now - 1, 1))
        crl = issue_crl(self._papers.issuer, self._entries, len(self._entries), now, 600.0, 60.0)
        assert self.revocations.take(crl.public_bytes(Encoding.DER), self._papers.issuer.certificate, now)
        proxy.revocations_changed()


@pytest.fixture
def ca(papers: Papers) -> Ca:
    return Ca(papers)


class Session:
    """A client connection that stays open between requests."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes = KEPT) -> int:
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        status, fields, _ = parts(head)
        await self.reader.readexactly(int(fields.get("content-length", "0")))
        return status


@pytest.fixture
async def sessions(bench: Bench) -> AsyncIterator[list[Session]]:
    opened: list[Session] = []
    yield opened
    for each in opened:
        each.writer.close()


async def connect(port: int, context: ssl.SSLContext, opened: list[Session]) -> Session:
    streams = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="www.example.com")
    opened.append(Session(*streams))
    return opened[-1]


def resume(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
    """Send a request on a new connection that resumes *session*; return the status line and the new TLS session."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=5)
    with context.wrap_socket(raw, server_hostname="www.example.com", session=session) as tls:
        tls.sendall(KEPT)
        line = tls.recv(65536).partition(b"\r\n")[0]
        assert tls.session_reused == (session is not None)
        return line, tls.session


async def test_a_revoked_client_is_refused_on_kept_new_and_resumed_connections(
    bench: Bench, papers: Papers, ca: Ca, sessions: list[Session]
) -> None:
    proxy, port = await bench.edge(plain(await bench.start(replying(OK))), mutual=True, revoked=ca.revocations)
    other, mine = papers.client("other.example.com"), papers.client("client.example.com")
    serial = papers.serial
    kept, good = await connect(port, mine, sessions), await connect(port, other, sessions)
    line, session = await asyncio.to_thread(resume, port, mine, None)
    assert (await kept.ask(), await good.ask(), line) == (200, 200, b"HTTP/1.1 200 OK")
    ca.revoke(proxy, serial)
    status, _, body = parts(await talk(port, GET, mine))
    assert (status, json.loads(body)["reason"].endswith(f"not revoked; got {serial}")) == (403, True)
    assert await kept.ask() == 403
    line, _ = await asyncio.to_thread(resume, port, mine, session)
    assert line == b"HTTP/1.1 403 Forbidden"
    assert await good.ask() == 200


async def test_a_revoked_client_is_refused_over_http_2(bench: Bench, papers: Papers, ca: Ca) -> None:
    origin = plain(await bench.start(replying(OK)))
    proxy, port = await bench.edge(origin, mutual=True, alpn=("h2",), revoked=ca.revocations)
    peer = await Http2Peer.connect(bench, port, "client.example.com")
    try:
        assert (await peer.answer(peer.request()))[0] == "200"
        ca.revoke(proxy, papers.serial)
        assert (await peer.answer(peer.request()))[0] == "403"
    finally:
        peer.writer.close()


async def switch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    await reader.read()


async def test_a_revocation_ends_the_tunnels_of_its_client_only(
    bench: Bench, papers: Papers, ca: Ca, sessions: list[Session]
) -> None:
    proxy, port = await bench.edge(plain(await bench.start(switch)), mutual=True, revoked=ca.revocations)
    other = await connect(port, papers.client("other.example.com"), sessions)
    mine = await connect(port, papers.client("client.example.com"), sessions)
    assert (await mine.ask(UPGRADE), await other.ask(UPGRADE)) == (101, 101)
    ca.revoke(proxy, papers.serial)
    assert await mine.reader.read() == b""
    assert len(proxy._exchanges) == 1


async def test_a_revoked_origin_is_not_used_over_pooled_or_new_connections(
    bench: Bench, papers: Papers, ca: Ca
) -> None:
    origin = await bench.start(replying(OK), papers.server("catalog-1.example.com", mutual=True))
    serial = papers.serial
    proxy, port = await bench.edge(Target("catalog-1.example.com", origin), revoked=ca.revocations)
    resolve_here(proxy, "catalog-1.example.com")
    assert parts(await talk(port, GET))[0] == 200
    await until(lambda: proxy._rows()[0]["idle"] == 1)
    ca.revoke(proxy, serial)
    assert proxy._rows()[0]["idle"] == 0
    status, _, body = parts(await talk(port, GET))
    assert (status, json.loads(body)["reason"]) == (502, f"certificate: serial number {serial} is revoked")


async def test_requests_avoid_a_revoked_origin_if_another_one_can_serve(bench: Bench, papers: Papers, ca: Ca) -> None:
    names = ("catalog-1.example.com", "catalog-2.example.com")
    targets = [Target(name, await bench.start(replying(OK), papers.server(name, mutual=True))) for name in names]
    serial = papers.serial
    proxy, port = await bench.edge(*targets, limits=Limits(idle=0), revoked=ca.revocations)
    for target in targets:
        resolve_here(proxy, target.host)
    ca.revoke(proxy, serial)
    assert [parts(await talk(port, GET))[0] for _ in range(8)] == [200] * 8
    assert [row["failed"] > 0 for row in proxy._rows()] == [False, True]
