"""A small CA, and servers in this process that behave, or misbehave in one way each."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from authority import Issuer, issue_intermediate, issue_leaf, issue_root, new_key
from generator import Target

NAME = "www.example.com"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Papers:
    """A root, an issuing CA, and server contexts with certificates of theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder, now = folder, time.time()
        root_key, issuing_key = new_key(), new_key()
        root = issue_root(root_key, "test root", now)
        issuing = issue_intermediate(Issuer(root, root_key, ()), issuing_key.public_key(), "test CA", now)
        self.issuer = Issuer(issuing, issuing_key, (issuing,))
        self.trust = folder / "root.pem"
        self.trust.write_bytes(root.public_bytes(Encoding.PEM))
        self.serial = ""

    def server(self, name: str = NAME, version: ssl.TLSVersion | None = None, age: float = 0.0) -> ssl.SSLContext:
        key = new_key()
        leaf = issue_leaf(self.issuer, key.public_key(), [name], time.time() - age, 600.0)
        self.serial = f"{leaf.serial_number:x}"
        path = self.folder / "pair.pem"
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + leaf.public_bytes(Encoding.PEM)
            + self.issuer.certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


class Site:
    """Starts servers and closes them all at the end."""

    def __init__(self, stack: contextlib.AsyncExitStack, papers: Papers) -> None:
        self.stack, self.papers = stack, papers
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, script: Script, context: ssl.SSLContext | None = None) -> Target:
        """Start a server that runs *script* for each connection; return what to ask."""

        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            self.writers.add(writer)
            try:
                await script(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=context, backlog=512)
        self.stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        return Target(NAME, port, "/", self.papers.trust, "http" if context is None else "https", "127.0.0.1")


@pytest.fixture
async def site(papers: Papers) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:
        made = Site(stack, papers)
        yield made
        for writer in made.writers:
            writer.close()
    await asyncio.sleep(0.02)


def replying(reply: bytes, *, delay: float = 0.0, close: bool = False) -> Script:
    """A server that answers every request with the same octets."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if delay:
                await asyncio.sleep(delay)
            writer.write(reply)
            await writer.drain()
            if close or b"connection: close" in head.lower():
                return

    return script


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
