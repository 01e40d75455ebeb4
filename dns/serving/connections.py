"""Connections of a DNS server, for any protocol on top of TCP: limit, time-outs, TLS, closing.

A connection without queries and pending replies is closed after a time-out. At the limit of connections, a new
connection evicts the one that has been idle longest; connections with a pending reply are never evicted.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Literal

from telemetry import log
from tlsreload import TlsTransport

logger = log.bounded("serving")

Client = tuple[str, int]
Transport = Literal["udp", "tcp", "tls", "https"]
#: A reply; None if there is no reply. Over a connection, a reply may consist of several messages (a zone transfer).
Reply = bytes | bytearray | Iterator[bytes] | None
#: ``handler(query, client, transport)`` returns the reply or an awaitable of it. None drops the query and, over TCP
#: and TLS, also closes the connection.
Handler = Callable[[bytes, Client, Transport], Reply | Awaitable[Reply]]

#: Maximum number of open connections; at the limit, the connection that has been idle longest is evicted.
MAX_CONNECTIONS = 512
#: Maximum number of connections that are accepted before other connections and timers get their turn.
BACKLOG = 128
#: Errors by which accept() reports a lack of descriptors or memory, and the pause in seconds before the next attempt.
EXHAUSTED, PAUSE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}), 0.2
#: Size of unsent replies at which the server stops reading from a connection, in bytes.
HIGH_WATER = 1 << 16
#: Maximum time to wait at shutdown for pending replies, and then for buffered data to be sent, in seconds each.
DRAIN = 1.0


class Connections:
    """The connections of one listening socket."""

    def __init__(
        self,
        make: Callable[["Connections"], "Connection"],
        handler: Handler,
        transport: Transport,
        idle: float = 10.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Create the service; then call `listen`.

        Args:
            make: creates the protocol of a new connection.
            handler: called on the event loop for each query.
            transport: passed to the handler.
            idle: seconds after which an idle connection is closed (RFC 7766 section 6.2.3).
            context: TLS context; None for plain TCP.
        """
        self.handler, self.transport, self.idle, self.context = handler, transport, idle, context
        self._make = make
        self.address: tuple[str, int] = ("", 0)
        #: Number of evicted connections, and number of connections rejected because no other connection was idle.
        self.evicted = self.rejected = 0
        #: Number of failed TLS handshakes.
        self.failed_handshakes = 0
        self._open: dict[Connection, None] = {}
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = None
        #: Tasks that create the transports of accepted sockets.
        self._starting: set[asyncio.Task[Any]] = set()
        #: Timer that ends a pause in accepting, and whether the last attempt failed for lack of a descriptor or memory.
        self._pause: asyncio.TimerHandle | None = None
        self._exhausted = False

    def __repr__(self) -> str:
        return f"<Connections {self.transport} {self.address[0]}:{self.address[1]} connections={len(self._open)}>"

    def __len__(self) -> int:
        return len(self._open)

    async def listen(self, sock: socket.socket) -> None:
        """Accept connections on the bound socket *sock*."""
        self.address = sock.getsockname()[:2]
        # Accepted sockets inherit this option; asyncio sets it only for sockets created with proto=IPPROTO_TCP.
        # Without it, a response can wait for the acknowledgement of an earlier record, which clients delay by 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._sock = sock
        self._loop.add_reader(sock.fileno(), self._acceptable)

    def stop_accepting(self) -> None:
        """Close the listening socket; connections stay open."""
        if self._pause is not None:
            self._pause.cancel()
        if self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _acceptable(self) -> None:
        """Accept the waiting connections; without a free descriptor, pause and leave them in the kernel's queue.

        The standard server of asyncio would log an error with a traceback for each of 128 attempts per second.
        """
        assert self._sock is not None  # noqa: S101 - `stop_accepting` removes this callback
        for _ in range(BACKLOG):
            try:
                sock, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                if not self._exhausted:
                    logger.warning("accepting_paused", transport=self.transport, reason=error.strerror)
                self._exhausted = True
                self._loop.remove_reader(self._sock.fileno())
                self._pause = self._loop.call_later(PAUSE, self._resume)
                return
            task = self._loop.create_task(self._loop.connect_accepted_socket(self._accept, sock))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)
        self._exhausted = False

    def _resume(self) -> None:
        if self._sock is not None:
            self._loop.add_reader(self._sock.fileno(), self._acceptable)

    async def close(self) -> None:
        """Stop accepting, wait up to `DRAIN` seconds for pending replies, and close all connections."""
        self.stop_accepting()
        pending = [task for connection in self._open for task in connection.pending]
        if pending:
            await asyncio.wait(pending, timeout=DRAIN)
        ends = [connection.ended for connection in self._open]
        for connection in tuple(self._open):
            connection.close()
        if ends:
            await asyncio.wait(ends, timeout=DRAIN)
        for connection in tuple(self._open):
            connection.abort()

    def forget(self, connection: "Connection") -> None:
        """Remove a connection that has ended."""
        self._open.pop(connection, None)

    def _accept(self) -> asyncio.BaseProtocol:
        connection = self._make(self)
        if len(self._open) >= MAX_CONNECTIONS and not self._evict():
            self.rejected += 1
            connection.rejected = True
        else:
            self._open[connection] = None
        if self.context is None or connection.rejected:
            return connection
        return connection.behind(TlsTransport(self.context, connection, self._handshake_failed, lambda _: None))

    def _evict(self) -> bool:
        """Close the connection that has been idle longest; return False if all connections have pending replies."""
        idle = (connection for connection in self._open if not connection.pending)
        victim = min(idle, key=lambda connection: connection.used, default=None)
        if victim is None:
            return False
        self.evicted += 1
        self.forget(victim)
        victim.close()
        return True

    def _handshake_failed(self, reason: str) -> None:
        self.failed_handshakes += 1
        logger.debug("handshake_failed", reason=reason)


class Connection(asyncio.Protocol):
    """One connection; subclasses read queries from it."""

    def __init__(self, service: Connections) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._client: Client = ("", 0)
        #: Replies that are not ready yet.
        self.pending: set[asyncio.Task[None]] = set()
        #: Time of the last complete query or reply, on the event loop's clock.
        self.used = self._loop.time()
        self.rejected = self._ending = False
        self._writable = asyncio.Event()
        self._writable.set()
        #: Done when the connection has ended.
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._timer = self._loop.call_later(service.idle, self._check)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._client[0]}:{self._client[1]} pending={len(self.pending)}>"

    # --- TLS ----------------------------------------------------------------------------------------------------------

    def behind(self, handshake: TlsTransport) -> TlsTransport:
        """Set *handshake* as the transport, so that the connection can be closed during its handshake."""
        self._transport = handshake
        return handshake

    def negotiated(self, protocol: str | None, /) -> asyncio.Protocol:  # noqa: ARG002 - subclasses use *protocol*
        """Return this connection as the protocol, regardless of the ALPN identifier selected (RFC 7858 section 3.1)."""
        return self

    def never_connected(self) -> None:
        """Handle a connection that ended during its TLS handshake."""
        self.connection_lost(None)

    # --- the transport's protocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Prepare the connection, or abort it if it was rejected."""
        self._transport = transport
        if self.rejected:
            self._transport.abort()
            return
        self._client = (transport.get_extra_info("peername") or ("", 0))[:2]
        self._transport.set_write_buffer_limits(HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio passes *exc*
        """Cancel the pending replies and remove the connection from the service."""
        self._timer.cancel()
        self._ending = True
        self._service.forget(self)
        for task in self.pending:
            task.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def pause_writing(self) -> None:
        """Answer no further queries until the client has read its replies."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Continue suspended work."""
        self._writable.set()
        self.proceed()

    def proceed(self) -> None:
        """Continue suspended work; called when a pending reply has been sent or writing may resume."""

    def later(self, reply: Coroutine[Any, Any, None]) -> None:
        """Run *reply*, a coroutine that sends a reply, as a task that is cancelled with this connection."""
        task = self._loop.create_task(reply)
        self.pending.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.pending.discard(task)
        self.proceed()

    def failed(self, error: Exception) -> None:
        """Log an exception of the handler."""
        transport = self._service.transport
        logger.error("handler_failed", client=self._client[0], transport=transport, error=repr(error))

    # --- closing ------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Close the connection if it has been idle for the whole time-out; otherwise check again later."""
        left = self.used + self._service.idle - self._loop.time()
        if self.pending and self._writable.is_set():
            left = self._service.idle  # a connection that waits for the handler is not idle
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        elif self._writable.is_set():
            self.close()
        else:
            self.abort()  # the client does not read, so buffered replies would keep the connection open

    def close(self) -> None:
        """Send the buffered replies, then close the connection."""
        self._ending = True
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.close()

    def abort(self) -> None:
        """Close the connection immediately."""
        self._ending = True
        if self._transport is not None:
            self._transport.abort()
