"""Peers for tests: a small CA, and servers in the test process that run a script for each connection."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Self

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authority import Issuer, issue_intermediate, issue_leaf, issue_root, new_key

NAME = "www.example.com"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Papers:
    """A test CA (root and issuing CA) that provides certificates as files and as TLS contexts."""

    def __init__(self, folder: Path) -> None:
        self.folder, now = folder, time.time()
        root_key, issuing_key = new_key(), new_key()
        root = issue_root(root_key, "test root", now)
        issuing = issue_intermediate(Issuer(root, root_key, ()), issuing_key.public_key(), "test CA", now)
        self.issuer = Issuer(issuing, issuing_key, (issuing,))
        self.trust = folder / "root.pem"
        self.trust.write_bytes(root.public_bytes(Encoding.PEM))
        #: Serial number of the most recent certificate, in hexadecimal.
        self.serial = ""

    def pair(self, name: str, begin: float = -60.0, end: float = 600.0) -> Path:
        """Return a file with a key and its certificate chain, valid from *begin* to *end* (seconds relative to now)."""
        key = new_key()
        leaf = issue_leaf(self.issuer, key.public_key(), [name], time.time(), end, -begin)
        self.serial = f"{leaf.serial_number:x}"
        path = self.folder / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + leaf.public_bytes(Encoding.PEM)
            + self.issuer.certificate.public_bytes(Encoding.PEM)
        )
        return path

    def server(
        self,
        name: str = NAME,
        *,
        mutual: bool = False,
        version: ssl.TLSVersion | None = None,
        begin: float = -60.0,
        end: float = 600.0,
    ) -> ssl.SSLContext:
        """Return a server context with a new certificate; if *mutual*, the client must present a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pair(name, begin, end))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.trust)
        return context

    def client(self, name: str | None = None) -> ssl.SSLContext:
        """Return a client context that trusts the root and, if *name* is given, presents a certificate for *name*."""
        context = ssl.create_default_context(cafile=self.trust)
        if name is not None:
            context.load_cert_chain(self.pair(name))
        return context


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


class Peers:
    """Starts servers, and closes all of them at the end of the test."""

    def __init__(self, stack: contextlib.AsyncExitStack, papers: Papers) -> None:
        self.stack, self.papers = stack, papers
        #: Number of connections accepted by all servers together.
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._servers: list[asyncio.Server] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, papers: Papers) -> AsyncIterator[Self]:
        """Yield a `Peers`; at the end, close its connections first, then all other resources on the exit stack."""
        async with contextlib.AsyncExitStack() as stack:
            made = cls(stack, papers)
            yield made
            for writer in made._writers:
                writer.close()
        async with asyncio.timeout(5):
            await asyncio.gather(*(writer.wait_closed() for writer in made._writers), return_exceptions=True)
        # Give connections that are still in the handshake time to finish; they have no writer that could be closed.
        await asyncio.sleep(0.02)  # waits for handshakes that are still in progress

    async def start(self, script: Script, context: ssl.SSLContext | None = None) -> int:
        """Start a server on loopback that runs *script* for each connection; return the port number."""

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            self._writers.add(writer)
            try:
                await script(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=context, backlog=512)
        self.stack.callback(server.close)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    def stop_listening(self) -> None:
        """Refuse new connections; open ones stay open."""
        for server in self._servers:
            server.close()


@pytest.fixture
async def peers(papers: Papers) -> AsyncIterator[Peers]:
    async with Peers.opened(papers) as made:
        yield made


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Read one HTTP request; return its request line, header fields and body."""
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


def replying(reply: bytes, *, delay: float = 0.0, close: bool = False) -> Script:
    """Return a script that sends *reply* for each request; if *close*, it closes the connection after one reply."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, fields, _ = await read_request(reader)
            if delay:
                await asyncio.sleep(delay)  # delay before the reply, as the test requested
            writer.write(reply)
            await writer.drain()
            if close or fields.get("connection", "").lower() == "close":
                return

    return script
