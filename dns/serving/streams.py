"""DNS over streams: connections that carry framed queries and replies, over TCP or TLS (RFC 7766, RFC 7858).

Each message has a two-byte length in front of it. Queries may be pipelined; a reply that takes time is sent when it is
ready, so replies may be out of order (RFC 7766 section 7). A connection is closed after a time without queries and
pending replies. At the limit of connections the one that has been idle longest makes room for a new one.
"""

import asyncio
import contextlib
import inspect
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal

from serving.edns import adapt
from telemetry import log
from tlsreload import TlsTransport

logger = log.get("serving")

Client = tuple[str, int]
Transport = Literal["udp", "tcp", "tls", "https"]
#: Over a stream, an iterator sends several messages in reply to one query, as a zone transfer does.
Reply = bytes | bytearray | Iterator[bytes] | None
#: ``handler(query, client, transport)`` returns the reply or an awaitable of it. None drops the query; over a stream it
#: also closes the connection.
Handler = Callable[[bytes, Client, Transport], Reply | Awaitable[Reply]]

#: Maximum number of open connections; at the limit, the one that has been idle longest is closed.
MAX_CONNECTIONS = 512
#: Maximum number of pending replies per connection; at the limit, the next query is read when one of them is sent.
MAX_PIPELINED = 100
#: Maximum number of queries of one connection that are answered before other connections and timers get their turn.
TURN = 64
#: Amount of unsent replies at which a connection is not read further, in bytes.
HIGH_WATER = 1 << 16
#: Time at shutdown for pending replies, and then for buffered data, in seconds.
DRAIN = 1.0


class Streams:
    """The connections of one listening socket."""

    def __init__(self, handler: Handler, idle: float = 10.0, context: ssl.SSLContext | None = None) -> None:
        """Create the service; then call `listen`.

        Args:
            handler: called on the event loop for each query.
            idle: seconds after which an idle connection is closed (RFC 7766 section 6.2.3).
            context: TLS context for DNS over TLS; None for plain TCP.
        """
        self.handler, self.idle, self.context = handler, idle, context
        self.transport: Transport = "tcp" if context is None else "tls"
        self.address: tuple[str, int] = ("", 0)
        #: Number of connections that were closed to make room, and of those rejected because none was idle.
        self.evicted = self.rejected = 0
        #: Number of failed TLS handshakes.
        self.failed_handshakes = 0
        self._open: dict[Stream, None] = {}
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Streams {self.transport} {self.address[0]}:{self.address[1]} connections={len(self._open)}>"

    def __len__(self) -> int:
        return len(self._open)

    async def listen(self, sock: socket.socket) -> None:
        """Accept connections on the bound socket *sock*."""
        self.address = sock.getsockname()[:2]
        self._server = await asyncio.get_running_loop().create_server(self._accept, sock=sock, backlog=128)

    def stop_accepting(self) -> None:
        """Close the listening socket; connections stay open."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Stop accepting, wait up to `DRAIN` seconds for pending replies, and close all connections."""
        self.stop_accepting()
        pending = [task for stream in self._open for task in stream.pending]
        if pending:
            await asyncio.wait(pending, timeout=DRAIN)
        ends = [stream.ended for stream in self._open]
        for stream in tuple(self._open):
            stream.close()
        if ends:
            await asyncio.wait(ends, timeout=DRAIN)
        for stream in tuple(self._open):
            stream.abort()

    def forget(self, stream: "Stream") -> None:
        """Remove a connection that has ended."""
        self._open.pop(stream, None)

    def _accept(self) -> asyncio.BaseProtocol:
        stream = Stream(self)
        if len(self._open) >= MAX_CONNECTIONS and not self._evict():
            self.rejected += 1
            stream.rejected = True
        else:
            self._open[stream] = None
        if self.context is None or stream.rejected:
            return stream
        return stream.behind(TlsTransport(self.context, stream, self._handshake_failed, lambda _: None))

    def _evict(self) -> bool:
        """Close the connection that has been idle longest; return whether there was one."""
        idle = (stream for stream in self._open if not stream.pending)
        victim = min(idle, key=lambda stream: stream.used, default=None)
        if victim is None:
            return False
        self.evicted += 1
        self.forget(victim)
        victim.close()
        return True

    def _handshake_failed(self, reason: str) -> None:
        self.failed_handshakes += 1
        logger.debug("handshake_failed", reason=reason)


class Stream(asyncio.Protocol):
    """One connection."""

    def __init__(self, service: Streams) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._client: Client = ("", 0)
        #: Received bytes of a message that is not complete, and their number when it will be.
        self._buffer, self._needed = bytearray(), 2
        #: Replies that are not ready yet.
        self.pending: set[asyncio.Task[None]] = set()
        #: Time of the last complete query or reply, on the event loop's clock.
        self.used = self._loop.time()
        self.rejected = self._ending = self._waiting = False
        self._writable = asyncio.Event()
        self._writable.set()
        #: Done when the connection has ended.
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._timer = self._loop.call_later(service.idle, self._check)

    def __repr__(self) -> str:
        return f"<Stream {self._client[0]}:{self._client[1]} pending={len(self.pending)}>"

    # --- TLS ----------------------------------------------------------------------------------------------------------

    def behind(self, handshake: TlsTransport) -> TlsTransport:
        """Use *handshake* as transport from the start, so that a connection can be closed during its handshake."""
        self._transport = handshake
        return handshake

    def negotiated(self, _protocol: str | None, /) -> asyncio.Protocol:
        """Return this object: ALPN has no choice to offer (RFC 7858 section 3.1)."""
        return self

    def never_connected(self) -> None:
        """Handle the end of the connection before its TLS handshake was complete."""
        self.connection_lost(None)

    # --- the transport's protocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read, or close the connection if there is no room for it."""
        self._transport = transport
        if self.rejected:
            self._transport.abort()
            return
        self._client = (transport.get_extra_info("peername") or ("", 0))[:2]
        self._transport.set_write_buffer_limits(HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio interface
        """Cancel the pending replies."""
        self._timer.cancel()
        self._ending = True
        self._service.forget(self)
        for task in self.pending:
            task.cancel()
        if not self.ended.done():
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Answer the queries that are complete."""
        if self._buffer or self._waiting:
            self._buffer += data
            if self._waiting or len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        self._answer(data)

    def eof_received(self) -> bool:
        """Close the connection when all replies to a client that has half-closed it are sent."""
        self._ending = True
        return bool(self.pending or self._waiting)

    def pause_writing(self) -> None:
        """Read no further queries until the client has read its replies."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Continue with the queries that were received in the meantime."""
        self._writable.set()
        self._continue()

    # --- queries and replies ------------------------------------------------------------------------------------------

    def _answer(self, data: bytes) -> None:
        """Answer the queries in *data*; keep what is incomplete or has to wait."""
        at, count, size, replies = 0, 0, len(data), list[bytes]()
        open_ = True
        while open_ and size - at >= 2:
            end = at + 2 + (data[at] << 8 | data[at + 1])
            if end > size:
                break
            if count == TURN or len(self.pending) >= MAX_PIPELINED or not self._writable.is_set():
                self._wait(busy=count == TURN)
                break
            count += 1
            open_ = self._query(data[at + 2 : end], replies)
            at = end
        if count:
            self.used = self._loop.time()
        if replies:
            self._transport.write(b"".join(replies))
        if not open_:
            self.close()
            return
        self._buffer += data[at:]
        left = size - at
        self._needed = 2 if left < 2 else 2 + (data[at] << 8 | data[at + 1])
        if self._ending and not self.pending and not self._waiting:
            self.close()

    def _query(self, query: bytes, replies: list[bytes]) -> bool:
        """Pass one query to the handler; return False if the connection must be closed."""
        service = self._service
        try:
            reply = service.handler(query, self._client, service.transport)
        except Exception as error:  # close this connection, but keep the server running
            logger.error("handler_failed", client=self._client[0], transport=service.transport, error=repr(error))
            return False
        if isinstance(reply, (bytes, bytearray)):
            replies.append(self._framed(query, reply))
        elif reply is None:
            return False
        else:
            task = self._loop.create_task(self._late(query, reply))
            self.pending.add(task)
            task.add_done_callback(self._answered)
        return True

    async def _late(self, query: bytes, reply: Awaitable[Reply] | Iterator[bytes]) -> None:
        """Send a reply that takes time, or that consists of several messages."""
        try:
            content = await reply if inspect.isawaitable(reply) else reply
            if content is None:
                self.close()
            elif isinstance(content, (bytes, bytearray)):
                self._send(self._framed(query, content))
            else:
                for message in content:
                    await self._writable.wait()
                    self._send(len(message).to_bytes(2, "big") + message)
                    await asyncio.sleep(0)  # other connections and timers get their turn
        except Exception as error:  # close this connection, but keep the server running
            transport = self._service.transport
            logger.error("handler_failed", client=self._client[0], transport=transport, error=repr(error))
            self.close()

    def _framed(self, query: bytes, reply: bytes | bytearray) -> bytes:
        if query[10:12] != b"\0\0":  # it may have EDNS options
            reply = adapt(query, reply, idle=self._service.idle, encrypted=self._service.context is not None)
        return len(reply).to_bytes(2, "big") + reply

    def _send(self, data: bytes) -> None:
        self.used = self._loop.time()
        if not self._transport.is_closing():
            self._transport.write(data)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.pending.discard(task)
        self._continue()

    def _wait(self, *, busy: bool) -> None:
        """Stop reading; *busy* means that only other connections have to get their turn first."""
        self._waiting = True
        self._transport.pause_reading()
        if busy:
            self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        """Answer the queries that had to wait; close a connection that the client has ended, once all is sent."""
        if self._transport.is_closing():
            return
        if self._waiting and self._writable.is_set() and len(self.pending) < MAX_PIPELINED:
            self._waiting = False
            data = bytes(self._buffer)
            self._buffer.clear()
            self._answer(data)
            if not self._waiting:
                self._transport.resume_reading()
        elif self._ending and not self.pending and not self._waiting:
            self.close()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Close the connection if it has been idle for the whole time-out; otherwise look again later."""
        left = self.used + self._service.idle - self._loop.time()
        if self.pending and self._writable.is_set():
            left = self._service.idle  # waiting for the handler is not idleness
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        elif self._writable.is_set():
            self.close()
        else:
            self.abort()  # the client does not read, so buffered replies would keep the connection open

    def close(self) -> None:
        """Close the connection after the replies that are already buffered."""
        self._ending = True
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._ending = True
        if self._transport is not None:
            self._transport.abort()
