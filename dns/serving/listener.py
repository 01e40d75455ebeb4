"""Listener for one address over UDP and TCP (RFC 1035 section 4.2, RFC 7766), or over TLS (RFC 7858).

The handler takes a query as bytes and returns the reply as bytes, so decoding, policy and truncation are the
handler's task. The listener answers UDP queries with a prebuilt answer itself. Connections are in
`serving.connections`.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator

from serving.batch import (
    BATCH,
    MAX_QUERY,
    Batch,
    Client,
    Finished,
    available,
)
from serving.coalescing import PAUSE, Coalescing
from serving.connections import Connection, Connections, Handler, Reply, Transport
from serving.later import Later
from serving.sending import IP_PKTINFO, IPV6_PKTINFO, send_later
from serving.streams import Stream
from telemetry import log

logger = log.get("serving")

#: Number of queries after which timers and TCP get their turn, even if more queries are waiting. Answering 512 queries
#: takes about 2 ms.
MAX_TURN = 512
#: Number of queries that are counted for a pause, because answering this many takes about as long as the pause.
PAUSED = 32
#: Maximum number of pending UDP replies. Further queries are dropped instead of queued, because clients retry.
MAX_PENDING = 4096
#: Size of the UDP send and receive buffers, in bytes; enough for a burst of a few thousand queries.
BUFFER = 1 << 20
#: Maximum number of ports tried for port 0. UDP and TCP must share a port, and a port may be free for only one of them.
PORT_TRIES = 16
#: Socket option that makes the kernel report the address that received a datagram (ipv6(7)).
IPV6_RECVPKTINFO = 49


class Listener:
    """An open listener for one address."""

    def __init__(self, udp: socket.socket, streams: Connections, handler: Handler, finished: Finished | None) -> None:
        host, port = udp.getsockname()[:2]
        #: (IP address, port) for both UDP and TCP.
        self.address: tuple[str, int] = (host, port)
        #: Connections over TCP.
        self.streams = streams
        self._overload = 0
        self._udp, self._handler, self._finished = udp, handler, finished
        self._loop = asyncio.get_running_loop()
        self._pending: set[asyncio.Task[None]] = set()
        wildcard, ipv4 = host in {"0.0.0.0", "::"}, udp.family == socket.AF_INET
        self._batch = Batch(udp, wildcard=wildcard) if ipv4 and available() else None
        self._coalescing = Coalescing()
        if self._batch is None and wildcard:
            option = (socket.IPPROTO_IP, IP_PKTINFO) if ipv4 else (socket.IPPROTO_IPV6, IPV6_RECVPKTINFO)
            udp.setsockopt(*option, 1)
        self._loop.add_reader(udp.fileno(), self._readable if self._batch is None else self._batches)

    def __repr__(self) -> str:
        return f"<Listener {show(self.address)} pending={len(self._pending)} tcp={len(self.streams)}>"

    @property
    def dropped(self) -> int:
        """Number of queries without a reply because too many replies were pending or the socket rejected the reply."""
        return self._overload + (self._batch.sender.dropped if self._batch is not None else 0)

    async def close(self) -> None:
        """Stop listening, wait up to one second for pending replies, and close all connections."""
        self._loop.remove_reader(self._udp.fileno())
        self.streams.stop_accepting()
        if self._pending:
            await asyncio.wait(self._pending, timeout=1.0)
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)
        self._udp.close()
        await self.streams.close()

    def _batches(self) -> None:
        """Answer the waiting UDP queries in batches."""
        assert self._batch is not None  # noqa: S101 - this callback is registered only if there is a batch
        left = MAX_TURN
        while left > 0 and (count := self._batch.turn(self._handle, self._finished)):
            left -= count  # read again immediately: this costs less than another turn of the event loop
            if self._coalescing.pauses(count, grouped=self._batch.sender.grouping):
                time.sleep(PAUSE)  # blocks, because the pause is shorter than the resolution of the loop's timers
                left -= PAUSED

    def _readable(self) -> None:
        """Answer the waiting UDP queries one at a time, on systems without the batched calls."""
        for _ in range(BATCH):
            try:
                query, ancillary, _flags, client = self._udp.recvmsg(MAX_QUERY, 64)
            except OSError:  # no more queries, or an ICMP error for an earlier reply
                return
            local = _local(ancillary)
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
            return None  # a reply of several messages cannot be sent over UDP
        if len(self._pending) < MAX_PENDING:
            task = self._loop.create_task(self._answer(reply, client, local))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)
        else:
            self._overload += 1
            if asyncio.iscoroutine(reply) or isinstance(reply, Later):
                reply.close()
        return None

    def _send(self, reply: bytes | bytearray, client: Client, local: bytes) -> None:
        with contextlib.suppress(OSError):  # send buffer full or client unreachable
            send_later(self._udp, reply, client, local)

    async def _answer(self, reply: Awaitable[Reply], client: Client, local: bytes) -> None:
        try:
            data = await reply
        except Exception as error:  # a failure on one query must not affect the replies to others
            logger.error("handler_failed", client=client[0], transport="udp", error=repr(error))
            return
        if isinstance(data, (bytes, bytearray)):
            self._send(data, client, local)


def show(address: tuple[str, int]) -> str:
    """Return *address* as HOST:PORT, with brackets around an IPv6 address."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _local(ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """Return the address that received a datagram, in the form that `send_later` takes; empty if it is not known."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            return bytes(4) + data[4:]
        if (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
            return data
    return b""


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
        endpoint: IP address and port; port 0 selects a free port. On 0.0.0.0 and ``::``, replies are sent from the
            address that received the query.
        handler: called on the event loop for each query without a prebuilt answer; may return an awaitable.
        finished: source of prebuilt answers for UDP over IPv4; None to pass every query to the handler.
        tcp_idle: seconds after which an idle TCP connection is closed (RFC 7766 section 6.2.3).
        shared: whether other processes may listen on the same port (SO_REUSEPORT); the kernel distributes clients.

    Raises:
        OSError: the address is in use or does not belong to this host; its `filename` is the address.
    """
    udp, tcp = _bind(*endpoint, shared=shared)
    streams = Connections(Stream, handler, "tcp", tcp_idle)
    await streams.listen(tcp)
    return Listener(udp, streams, handler, finished)


async def start_tls(
    endpoint: tuple[str, int],
    handler: Handler,
    context: ssl.SSLContext,
    *,
    make: Callable[[Connections], Connection] = Stream,
    transport: Transport = "tls",
    idle: float = 10.0,
    shared: bool = False,
) -> Connections:
    """Start serving *handler* on *endpoint* over TLS (RFC 7858).

    Args:
        endpoint: IP address and port; port 0 selects a free port.
        handler: called on the event loop for each query; may return an awaitable.
        context: server-side TLS context, for example from `tlsreload.ReloadingContext`.
        make: creates the protocol of a new connection.
        transport: passed to the handler.
        idle: seconds after which an idle connection is closed.
        shared: whether other processes may listen on the same port (SO_REUSEPORT).

    Raises:
        OSError: the address is in use or does not belong to this host; its `filename` is the address.
    """
    sock = _socket(endpoint[0], socket.SOCK_STREAM, shared=shared)
    try:
        sock.bind(endpoint)
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror, show(endpoint)) from None
    service = Connections(make, handler, transport, idle, context)
    await service.listen(sock)
    return service


def _socket(host: str, kind: socket.SocketKind, *, shared: bool) -> socket.socket:
    """Return a socket of the address family of *host*; an IPv6 socket does not accept IPv4 clients."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def reserve(endpoint: tuple[str, int]) -> tuple[str, int]:
    """Return *endpoint* with port 0 replaced by a free port, for several processes that share the port.

    The port must not be in use: otherwise, the processes would receive some of another server's queries.

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
        udp, tcp = (_socket(host, kind, shared=shared) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        try:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            udp.bind((host, port))
            tcp.bind((host, udp.getsockname()[1]))
            tcp.listen(128)
        except OSError as error:
            udp.close()
            tcp.close()
            if port or attempt == PORT_TRIES - 1:
                raise OSError(error.errno, error.strerror, show((host, port))) from None
        else:
            return udp, tcp
    raise AssertionError("unreachable: the last try returns or raises")
