"""DNS over streams: framed queries and replies, over TCP or TLS (RFC 7766, RFC 7858).

Each message is preceded by its length in two bytes. Queries may be pipelined; each reply is sent as soon as it is
ready, so replies may be out of order (RFC 7766 section 7).
"""

import asyncio
import inspect
from collections.abc import Awaitable, Iterator

from serving.connections import Connection, Connections, Reply
from serving.edns import adapt

#: Maximum number of pending replies per connection; at the limit, the next query waits until a reply is sent.
MAX_PIPELINED = 100
#: Maximum number of queries of one connection that are answered before other connections and timers get their turn.
TURN = 64


class Stream(Connection):
    """A connection with framed messages."""

    def __init__(self, service: Connections) -> None:
        super().__init__(service)
        #: Received bytes of an incomplete message, and the size at which the buffer is parsed again, in bytes.
        self._buffer, self._needed = bytearray(), 2
        self._waiting = False

    def data_received(self, data: bytes) -> None:
        """Answer all complete queries."""
        if self._buffer or self._waiting:
            self._buffer += data
            if self._waiting or len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        self._answer(data)

    def eof_received(self) -> bool:
        """Close the connection once all replies are sent; the client has half-closed it."""
        self._ending = True
        return bool(self.pending or self._waiting)

    def _answer(self, data: bytes) -> None:
        """Answer the queries in *data*; keep incomplete queries, and queries above the limits, for later."""
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
            self.failed(error)
            return False
        if isinstance(reply, (bytes, bytearray)):
            replies.append(self._framed(query, reply))
        elif reply is None:
            return False
        else:
            self.later(self._late(query, reply))
        return True

    async def _late(self, query: bytes, reply: Awaitable[Reply] | Iterator[bytes]) -> None:
        """Wait for *reply* and send it; an iterator yields the messages of a reply that has several."""
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
            self.failed(error)
            self.close()

    def _framed(self, query: bytes, reply: bytes | bytearray) -> bytes:
        if query[10:12] != b"\0\0":  # an additional section may contain EDNS options
            reply = adapt(query, reply, idle=self._service.idle, encrypted=self._service.context is not None)
        return len(reply).to_bytes(2, "big") + reply

    def _send(self, data: bytes) -> None:
        self.used = self._loop.time()
        if not self._transport.is_closing():
            self._transport.write(data)

    def _wait(self, *, busy: bool) -> None:
        """Stop reading; if *busy*, continue after one turn of the event loop."""
        self._waiting = True
        self._transport.pause_reading()
        if busy:
            self._loop.call_soon(self.proceed)

    def proceed(self) -> None:
        """Answer the queries that were kept for later; close a half-closed connection once all replies are sent."""
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
