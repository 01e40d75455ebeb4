"""Certificates of a small CA, origins that behave and origins that do not, all on loopback."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authority import Issuer, issue_intermediate, issue_leaf, issue_root, new_key
from edge import Limits, Route, Target
from edge.proxy import Proxy
from stub import AsyncStub
from telemetry import Telemetry

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Papers:
    """A root, an issuing CA, and certificates as files."""

    def __init__(self, folder: Path) -> None:
        self.folder, now = folder, time.time()
        root_key, issuing_key = new_key(), new_key()
        root = issue_root(root_key, "test root", now)
        issuing = issue_intermediate(Issuer(root, root_key, ()), issuing_key.public_key(), "test CA", now)
        self.issuer = Issuer(issuing, issuing_key, (issuing,))
        self.trust = folder / "root.pem"
        self.trust.write_bytes(root.public_bytes(Encoding.PEM))

    def pair(self, name: str, lifetime: float = 60.0) -> Path:
        key = new_key()
        leaf = issue_leaf(self.issuer, key.public_key(), [name], time.time(), lifetime)
        path = self.folder / f"{name}.pem"
        parts = [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())]
        path.write_bytes(
            b"".join([*parts, leaf.public_bytes(Encoding.PEM), self.issuer.certificate.public_bytes(Encoding.PEM)])
        )
        return path

    def server(self, name: str, *, mutual: bool = False) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pair(name))
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.trust)
        return context

    def client(self, name: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.trust)
        if name is not None:
            context.load_cert_chain(self.pair(name))
        return context


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


class Bench:
    """Makes origins and edges, and closes them all at the end."""

    def __init__(self, stack: contextlib.AsyncExitStack, papers: Papers) -> None:
        self.stack, self.papers = stack, papers
        self.writers: set[asyncio.StreamWriter] = set()

    async def origin(self, script: Script, context: ssl.SSLContext | None = None) -> int:
        """Start an origin that runs *script* for each connection."""

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.writers.add(writer)
            try:
                await script(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=context)
        self.stack.callback(server.close)
        return server.sockets[0].getsockname()[1]

    async def edge(
        self, *targets: Target, limits: Limits | None = None, pooled: bool = True, tls: bool = False, **more: Any
    ) -> tuple[Proxy, int]:
        """Start an edge with one route to *targets*."""
        client = self.papers.client("www.example.com") if any(t.tls for t in targets) else None
        stub = AsyncStub([("127.0.0.1", 9)], timeout=0.1, attempts=1)
        proxy = Proxy(Telemetry("edge"), [Route("/", targets)], stub, lambda: client, limits=limits, **more)
        context = self.papers.server("www.example.com") if tls else None
        _, port = await proxy.listen(("127.0.0.1", 0), "test", context=context, pooled=pooled)
        self.stack.push_async_callback(proxy.close)
        return proxy, port


@pytest.fixture
async def bench(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr("edge.proxy.DRAIN", 0.3)
    async with contextlib.AsyncExitStack() as stack:
        made = Bench(stack, papers)
        yield made
        for writer in made.writers:
            writer.close()
    await asyncio.sleep(0.02)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Read one request as an origin sees it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head[1:] if line}
    body = b""
    if "content-length" in fields:
        body = await reader.readexactly(int(fields["content-length"]))
    elif fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return head[0], fields, body


def replying(reply: bytes) -> Script:
    """An origin that answers every request with the same octets."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(reply)
            await writer.drain()

    return script


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def talk(port: int, request: bytes, context: ssl.SSLContext | None = None, timeout: float = 3.0) -> bytes:
    """Send octets, half-close nothing, return everything until the edge closes or falls silent for a moment."""
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
