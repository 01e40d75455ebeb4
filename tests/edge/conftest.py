"""Fixtures for edge tests: edges on loopback in front of scripted origins."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edge import Limits, Route, Target, Timeouts
from edge.proxy import Proxy
from edge.settings import Settings
from stub import AsyncStub
from telemetry import Telemetry
from tests.peers import Papers, Peers, papers
from tests.waiting import until

__all__ = ["GET", "Bench", "bench", "papers", "parts", "plain", "talk", "until_idle"]

GET = b"GET / HTTP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n"


class Bench(Peers):
    """Scripted origin servers, and edges that forward to them."""

    async def edge(
        self,
        *targets: Target,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        pooled: bool = True,
        tls: bool = False,
        mutual: bool = False,
        alpn: tuple[str, ...] = (),
        **more: Any,
    ) -> tuple[Proxy, int]:
        """Start an edge with one route to *targets*; return the edge and its port."""
        client = self.papers.client("www.example.com") if any(t.tls for t in targets) else None
        stub = AsyncStub([("127.0.0.1", 9)], timeout=0.1, attempts=1)
        settings = Settings((Route("/", targets, limits=limits),), timeouts or Timeouts(drain=0.3))
        proxy = Proxy(Telemetry("edge"), settings, stub, lambda: client, **more)
        context = self.papers.server("www.example.com", mutual=mutual) if tls or mutual else None
        if context is not None and alpn:
            context.set_alpn_protocols(list(alpn))
        _, port = await proxy.listen(("127.0.0.1", 0), "test", context=context, pooled=pooled)
        self.stack.push_async_callback(proxy.close)
        return proxy, port


@pytest.fixture
async def bench(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("edge.proxy.TICK", 0.02)
    async with Bench.opened(papers) as made:
        yield made


async def until_idle(proxy: Proxy) -> None:
    """Wait until no client is connected and no pooled connection is in use."""
    await until(lambda: not proxy._clients and not any(row["active"] for row in proxy._rows()))


async def talk(port: int, request: bytes, context: ssl.SSLContext | None = None, timeout: float = 3.0) -> bytes:
    """Send *request* and return everything received until the edge closes; fail after *timeout* seconds of silence."""
    name = "www.example.com" if context else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    received = b""
    try:
        writer.write(request)
        while chunk := await asyncio.wait_for(reader.read(65536), timeout):
            received += chunk
    except ConnectionResetError:
        pass
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return received


def plain(port: int) -> Target:
    return Target("127.0.0.1", port, tls=False)


def parts(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    return int(lines[0].split()[1]), {n.lower(): v for n, _, v in (line.partition(": ") for line in lines[1:])}, body
