"""Starts traps on this machine, each on its own port."""

import asyncio
import datetime as dt
import socket
import ssl
import tempfile
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from traps.answers import Visit
from traps.catalogue import Trap
from traps.certificates import Mint

ADDRESS = "127.0.0.1"
#: Number of connections that fill the accept queue of a listener with a backlog of 0.
FILLING = 4


@dataclass(frozen=True, slots=True)
class Stand:
    """A running trap."""

    trap: Trap
    url: str
    visit: Visit


@asynccontextmanager
async def zoo(traps: Sequence[Trap], folder: Path) -> AsyncIterator[list[Stand]]:
    """Run *traps* on free ports of 127.0.0.1, and write the trusted root certificate to ``root.pem`` in *folder*.

    Raises:
        OSError: no port is free, or *folder* is not writable.
        ssl.SSLError: this machine's OpenSSL cannot serve a trap.
    """
    mint = Mint(dt.datetime.now(dt.UTC))
    (folder / "root.pem").write_bytes(mint.root.certificate.public_bytes(Encoding.PEM))
    async with AsyncExitStack() as stack:
        yield [await _start(trap, mint, stack) for trap in traps]


async def _start(trap: Trap, mint: Mint, stack: AsyncExitStack) -> Stand:
    visit = Visit()
    if trap.listens != "yes":
        port = _deaf(trap, stack)
        return Stand(trap, f"{trap.scheme}://{trap.host}:{port}/", visit)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit.connections += 1
        try:
            await trap.answer(reader, writer, visit)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # the client closed the connection, which is a correct reaction to most traps
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def stop() -> None:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    context = _context(trap, mint)
    server = await asyncio.start_server(accept, ADDRESS, 0, ssl=context)
    stack.push_async_callback(stop)
    return Stand(trap, f"{trap.scheme}://{trap.host}:{server.sockets[0].getsockname()[1]}/", visit)


def _context(trap: Trap, mint: Mint) -> ssl.SSLContext | None:
    if trap.identity is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # two traps offer only TLS 1.0 or 1.1 on purpose
        trap.settings(context)
    with tempfile.NamedTemporaryFile() as file:
        file.write(trap.identity(mint).pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _deaf(trap: Trap, stack: AsyncExitStack) -> int:
    """Reserve a port that refuses connections, or that ignores them because its accept queue is full."""
    sock = stack.enter_context(socket.socket())
    sock.bind((ADDRESS, 0))
    port = int(sock.getsockname()[1])
    if trap.listens == "ignores":
        sock.listen(0)
        for _ in range(FILLING):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            with suppress(BlockingIOError):
                filling.connect((ADDRESS, port))
    return port
