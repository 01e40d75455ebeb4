"""Listener for one address over UDP and TCP (RFC 1035 section 4.2, RFC 7766).

The handler takes a query as bytes and returns the reply as bytes, so decoding, policy and truncation are up to the
handler. Queries with a finished answer do not reach it.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Literal

from serving.batch import BATCH, IP_PKTINFO, MAX_QUERY, Batch, Client, Finished, available, send_later
from telemetry import log

logger = log.get("serving")
Transport = Literal["udp", "tcp"]
#: Over TCP, an iterator sends several messages in reply to one query, as a zone transfer does.
Reply = bytes | bytearray | Iterator[bytes] | None
#: ``handler(query, client, transport)`` returns the reply or an awaitable of it; None drops the query.
Handler = Callable[[bytes, Client, Transport], Reply | Awaitable[Reply]]

#: Maximum number of batches per readiness event; it bounds the delay of timers and TCP.
ROUNDS = 8
#: Maximum number of pending UDP replies. Further queries are dropped instead of queued, because clients retry.
MAX_PENDING = 4096
#: Maximum number of open TCP connections; further ones are closed immediately.
MAX_CONNECTIONS = 512
#: Maximum number of pending replies per TCP connection; at the limit, the next query is read when one of them is sent.
MAX_PIPELINED = 100
#: Size of the UDP send and receive buffers, in bytes; enough for a burst of a few thousand queries.
BUFFER = 1 << 20
#: Maximum number of ports tried for port 0. UDP and TCP must share a port, and a port may be free for only one of them.
PORT_TRIES = 16


class Listener:
    """An open listener for one address."""

    def __init__(
        self, udp: socket.socket, tcp: asyncio.Server, handler: Handler, finished: Finished | None, tcp_idle: float
    ) -> None:
        host, port = udp.getsockname()[:2]
        #: (IPv4 address, port) for both UDP and TCP.
        self.address: tuple[str, int] = (host, port)
        self._overload = 0
        self._udp, self._tcp, self._handler, self._finished, self._tcp_idle = udp, tcp, handler, finished, tcp_idle
        self._loop = asyncio.get_running_loop()
        self._pending: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        wildcard = host == "0.0.0.0"
        self._batch = Batch(udp, wildcard=wildcard) if available() else None
        if self._batch is None and wildcard:
            udp.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self._loop.add_reader(udp.fileno(), self._readable if self._batch is None else self._batches)

    def __repr__(self) -> str:
        return (
            f"<Listener {self.address[0]}:{self.address[1]} pending={len(self._pending)} tcp={len(self._connections)}>"
        )

    @property
    def dropped(self) -> int:
        """Number of queries without a reply because too many were pending or the socket rejected the reply."""
        return self._overload + (self._batch.dropped if self._batch is not None else 0)

    async def close(self) -> None:
        """Stop listening, wait up to one second for pending replies, and close all connections."""
        self._loop.remove_reader(self._udp.fileno())
        self._tcp.close()
        if self._pending:
            await asyncio.wait(self._pending, timeout=1.0)
        for task in (*self._pending, *self._connections):
            task.cancel()
        await asyncio.gather(*self._pending, *self._connections, return_exceptions=True)
        self._udp.close()

    def _batches(self) -> None:
        """Answer the waiting UDP queries in batches."""
        assert self._batch is not None  # noqa: S101 - the reader is registered only with a batch
        for _ in range(ROUNDS):
            if self._batch.turn(self._handle, self._finished) < BATCH:
                return

    def _readable(self) -> None:
        """Answer the waiting UDP queries one at a time, on systems without the batched calls."""
        for _ in range(BATCH):
            try:
                query, ancillary, _flags, client = self._udp.recvmsg(MAX_QUERY, 64)
            except OSError:  # no more queries, or an ICMP error for an earlier reply
                return
            local = next((bytes(4) + data[4:] for _level, kind, data in ancillary if kind == IP_PKTINFO), b"")
            reply = self._handle(query, client, local)
            if reply is not None:
                self._send(reply, client, local)

    def _handle(self, query: bytes, client: Client, local: bytes) -> bytes | bytearray | None:
        """Return the handler's reply; None if there is no reply or it is sent later."""
        try:
            reply = self._handler(query, client, "udp")
        except Exception as error:  # a failure on one query must not affect the replies to others
            logger.error("handler_failed", client=client[0], transport="udp", query=query.hex(), error=repr(error))
            return None
        if reply is None or isinstance(reply, (bytes, bytearray)):
            return reply
        if isinstance(reply, Iterator):
            return None  # several messages are for streams only
        if len(self._pending) < MAX_PENDING:
            task = self._loop.create_task(self._answer(reply, client, local))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)
        else:
            self._overload += 1
            if asyncio.iscoroutine(reply):
                reply.close()
        return None

    def _send(self, reply: bytes | bytearray, client: Client, local: bytes) -> None:
        with contextlib.suppress(OSError):  # send buffer full or client unreachable: UDP may lose the reply
            send_later(self._udp, reply, client, local)

    async def _answer(self, reply: Awaitable[Reply], client: Client, local: bytes) -> None:
        try:
            data = await reply
        except Exception as error:  # a failure on one query must not affect the replies to others
            logger.error("handler_failed", client=client[0], transport="udp", error=repr(error))
            return
        if isinstance(data, (bytes, bytearray)):
            self._send(data, client, local)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio.start_server runs this as a task
        if len(self._connections) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        client = writer.get_extra_info("peername")[:2]
        late: set[asyncio.Task[None]] = set()
        try:
            while True:
                async with asyncio.timeout(self._tcp_idle):
                    (length,) = struct.unpack("!H", await reader.readexactly(2))
                    query = await reader.readexactly(length)
                reply = self._handler(query, client, "tcp")
                if reply is None:
                    break
                if isinstance(reply, (bytes, bytearray)):
                    _write(writer, reply)
                elif isinstance(reply, Iterator):
                    for message in reply:
                        _write(writer, message)
                        async with asyncio.timeout(self._tcp_idle):
                            await writer.drain()
                        await asyncio.sleep(0)  # other connections and timers get their turn
                else:  # sent when ready, possibly out of order (RFC 7766 section 7)
                    pending = self._loop.create_task(self._answer_tcp(reply, client, writer))
                    late.add(pending)
                    pending.add_done_callback(late.discard)
                    if len(late) >= MAX_PIPELINED:
                        await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
                async with asyncio.timeout(self._tcp_idle):
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.CancelledError):
            pass  # idle time-out, disconnected client, or shutdown: close the connection
        except Exception as error:  # close this connection but keep the server running
            logger.error("handler_failed", client=client[0], transport="tcp", error=repr(error))
        finally:
            await self._end(task, late, writer)

    async def _end(self, task: asyncio.Task[None], late: set[asyncio.Task[None]], writer: asyncio.StreamWriter) -> None:
        """Close a connection after its pending replies are sent, or immediately if the server is shutting down."""
        with contextlib.suppress(asyncio.CancelledError):
            if late and not task.cancelling():
                await asyncio.wait(late)
        for pending in late:
            pending.cancel()
        self._connections.discard(task)
        writer.close()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()

    async def _answer_tcp(self, reply: Awaitable[Reply], client: Client, writer: asyncio.StreamWriter) -> None:
        try:
            data = await reply
        except Exception as error:  # a failure on one query must not affect the replies to others
            logger.error("handler_failed", client=client[0], transport="tcp", error=repr(error))
            return
        if isinstance(data, (bytes, bytearray)):
            _write(writer, data)
        else:
            writer.close()


def _write(writer: asyncio.StreamWriter, reply: bytes | bytearray) -> None:
    writer.write(struct.pack("!H", len(reply)) + reply)


async def start(
    endpoint: tuple[str, int],
    handler: Handler,
    *,
    finished: Finished | None = None,
    tcp_idle: float = 10.0,
    shared: bool = False,
) -> Listener:
    """Start serving *handler* on *endpoint*, over UDP and TCP on the same port.

    Args:
        endpoint: IPv4 address and port; port 0 selects a free port. On 0.0.0.0, replies are sent from the address that
            received the query.
        handler: called on the event loop for each query without a finished answer; may return an awaitable.
        finished: source of finished answers for UDP; None sends every query to the handler.
        tcp_idle: seconds after which an idle TCP connection is closed (RFC 7766 section 6.2.3).
        shared: whether other processes may listen on the same port (SO_REUSEPORT); the kernel distributes clients.

    Raises:
        OSError: the address is in use or does not belong to this host.
    """
    udp, tcp = _bind(*endpoint, shared=shared)
    listener: Listener
    server = await asyncio.start_server(
        lambda r, w: listener._connected(r, w),  # noqa: SLF001, PLW0108 - late bound
        sock=tcp,
    )
    listener = Listener(udp, server, handler, finished, tcp_idle)
    return listener


def reserve(endpoint: tuple[str, int]) -> tuple[str, int]:
    """Return *endpoint* with a free port in place of port 0, after checking that no other program listens there.

    Several processes then share it; without the check, they would take a share of another server's queries.

    Raises:
        OSError: the address is in use or does not belong to this host.
    """
    sockets = _bind(*endpoint, shared=False)
    address: tuple[str, int] = sockets[0].getsockname()[:2]
    for each in sockets:
        each.close()
    return address


def _bind(host: str, port: int, *, shared: bool) -> tuple[socket.socket, socket.socket]:
    for attempt in range(PORT_TRIES):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            udp.setblocking(False)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            if shared:
                for sock in (udp, tcp):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
