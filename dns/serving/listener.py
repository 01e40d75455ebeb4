"""One address, served over UDP and TCP (RFC 1035 section 4.2, RFC 7766).

The handler gets bytes and gives bytes: decoding, policy and truncation are its own.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Literal

from telemetry import log

logger = log.get("serving")
Transport = Literal["udp", "tcp"]
Reply = bytes | bytearray | None
#: ``handler(query, client, transport)``; None drops the query.
Handler = Callable[[bytes, tuple[str, int], Transport], Reply | Awaitable[Reply]]

#: Datagrams read per readiness event.  Enough to amortise the event loop, few enough to let timers and TCP through.
UDP_BATCH = 64
#: A query is small; more than this over UDP is not one.
UDP_MAX_QUERY = 4096
#: Answers under way over UDP.  Beyond it queries are dropped: the client asks again, the queue does not grow.
MAX_PENDING = 4096
#: Open TCP connections; the oldest habit of exhausting a name server.
MAX_CONNECTIONS = 512
#: Socket buffers: a burst of a few thousand queries waits there while one is answered.
BUFFER = 1 << 20
#: Free ports tried for ``port 0``, since UDP and TCP must agree on one.
PORT_TRIES = 16


class Listener:
    """An address that is being served."""

    def __init__(self, udp: socket.socket, tcp: asyncio.Server, handler: Handler, tcp_idle: float) -> None:
        host, port = udp.getsockname()[:2]
        #: (IPv4 address, port) that is listened on, for UDP and for TCP.
        self.address: tuple[str, int] = (host, port)
        #: Queries dropped because too many were under way.
        self.dropped = 0
        self._udp, self._tcp, self._handler, self._tcp_idle = udp, tcp, handler, tcp_idle
        self._loop = asyncio.get_running_loop()
        self._pending: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop.add_reader(udp.fileno(), self._readable)

    def __repr__(self) -> str:
        return (
            f"<Listener {self.address[0]}:{self.address[1]} pending={len(self._pending)} tcp={len(self._connections)}>"
        )

    async def close(self) -> None:
        """Stop listening, let answers under way finish (one second at most), close connections."""
        self._loop.remove_reader(self._udp.fileno())
        self._tcp.close()
        if self._pending:
            await asyncio.wait(self._pending, timeout=1.0)
        for task in (*self._pending, *self._connections):
            task.cancel()
        await asyncio.gather(*self._pending, *self._connections, return_exceptions=True)
        self._udp.close()

    def _readable(self) -> None:
        udp, handler = self._udp, self._handler
        for _ in range(UDP_BATCH):
            try:
                query, client = udp.recvfrom(UDP_MAX_QUERY)
            except OSError:  # nothing more to read, or an ICMP error for an earlier answer
                return
            try:
                reply = handler(query, client, "udp")
            except Exception as error:  # one query must not cost the others theirs
                logger.error("handler_failed", client=client[0], transport="udp", query=query.hex(), error=repr(error))
                continue
            if reply is None:
                continue
            if isinstance(reply, (bytes, bytearray)):
                self._send(reply, client)
            elif len(self._pending) < MAX_PENDING:
                task = self._loop.create_task(self._answer(reply, client))
                self._pending.add(task)
                task.add_done_callback(self._pending.discard)
            else:
                self.dropped += 1
                if asyncio.iscoroutine(reply):
                    reply.close()

    def _send(self, reply: bytes | bytearray, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # full buffer or client gone: a datagram may be lost, that is what it is
            self._udp.sendto(reply, client)

    async def _answer(self, reply: Awaitable[Reply], client: tuple[str, int]) -> None:
        try:
            data = await reply
        except Exception as error:  # one query must not cost the others theirs
            logger.error("handler_failed", client=client[0], transport="udp", error=repr(error))
            return
        if data is not None:
            self._send(data, client)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio.start_server runs this as a task
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        client = writer.get_extra_info("peername")[:2]
        try:
            while True:
                async with asyncio.timeout(self._tcp_idle):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    query = await reader.readexactly(length)
                reply = self._handler(query, client, "tcp")
                data = reply if reply is None or isinstance(reply, (bytes, bytearray)) else await reply
                if data is None:
                    break
                writer.write(struct.pack("!H", len(data)) + data)
                async with asyncio.timeout(self._tcp_idle):
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
            pass  # idle, gone, or we are closing: in each case the connection ends
        except Exception as error:  # this connection ends, the server does not
            logger.error("handler_failed", client=client[0], transport="tcp", error=repr(error))
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()


async def start(endpoint: tuple[str, int], handler: Handler, *, tcp_idle: float = 10.0) -> Listener:
    """Serve *handler* on *endpoint*, UDP and TCP at the same port (any free one for port 0).

    Args:
        endpoint: IPv4 address and port.
        handler: called once per query, on the event loop; may return an awaitable.
        tcp_idle: seconds until a silent TCP connection is closed (RFC 7766 section 6.2.3).

    Raises:
        OSError: the address is in use or not ours.
    """
    udp, tcp = _bind(*endpoint)
    listener: Listener
    server = await asyncio.start_server(lambda r, w: listener._connected(r, w), sock=tcp)  # noqa: SLF001, PLW0108 - late bound
    listener = Listener(udp, server, handler, tcp_idle)
    return listener


def _bind(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    for attempt in range(PORT_TRIES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            udp.setblocking(False)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            udp.bind((host, port))
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, udp.getsockname()[1]))
            tcp.listen(128)
        except OSError:
            udp.close()
            tcp.close()
            if port or attempt == PORT_TRIES - 1:
                raise
        else:
            return udp, tcp
    raise AssertionError("unreachable: the last try returns or raises")
