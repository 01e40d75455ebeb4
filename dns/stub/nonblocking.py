"""Exchanges with a server over asyncio."""

import asyncio
import contextlib
import socket
from typing import Any

from dnsmessage import Message
from stub.channel import channel
from stub.errors import MalformedReplyError
from stub.exchange import Exchange, Server, family, reply_to
from stub.message import parse
from stub.transport import Transport

#: Size of the receive buffer, in bytes.
_CHUNK = 65_536


async def udp(wire: bytes, server: Server, exchange: Exchange) -> Message:
    """Send a query in a datagram and return the reply; raise `OSError` on failure."""
    loop = asyncio.get_running_loop()
    with socket.socket(family(server), socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(server)
        sock.send(wire)
        exchange.sent += len(wire)
        while True:
            data = await loop.sock_recv(sock, _CHUNK)
            exchange.received += len(data)
            with contextlib.suppress(MalformedReplyError):  # wait for another datagram: this one is not the reply
                reply = parse(wire, data)
                exchange.round_trips += 1
                return reply


class Stream(asyncio.Protocol):
    """A connection to a server, over TCP or TLS, for any number of queries at the same time."""

    def __init__(self, transport: Transport, server: Server) -> None:
        self._channel = channel(transport, server[0])
        self._transport: Any = None
        self._replies: dict[int, asyncio.Future[bytes]] = {}
        #: Bytes sent and received on this connection.
        self.sent = self.received = 0
        #: Reason for the end of the connection; None while it is open.
        self.ended: OSError | None = None

    @classmethod
    async def open(cls, transport: Transport, server: Server) -> "Stream":
        """Connect to the server; raise `OSError` on failure."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: cls(transport, server), *server))[1]

    async def ask(self, wire: bytes, exchange: Exchange) -> Message:
        """Send a query and return the reply.

        If queries overlap, bytes on the connection are counted for each of them.

        Raises:
            OSError: the connection failed or ended (`ConnectionError`), or TLS failed (`ssl.SSLError`).
        """
        if self.ended is not None:
            raise self.ended
        sent, received = self.sent, self.received
        is_new = not received
        if is_new:
            sent = 0  # the bytes of the handshake are counted for the first query
        ident = self._channel.submit(wire)
        future = self._replies[ident] = asyncio.get_running_loop().create_future()
        try:
            self._flush()
            reply = await future
            exchange.round_trips += 1 + is_new * self._channel.setup_round_trips
            return reply_to(wire, reply)
        finally:
            del self._replies[ident]
            self._channel.withdraw(ident)
            exchange.sent += self.sent - sent
            exchange.received += self.received - received

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    # --- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the TLS handshake."""
        self._transport = transport
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Pass each reply to the task that waits for it."""
        self.received += len(data)
        try:
            for ident, reply in self._channel.receive(data).items():
                if ident in self._replies and not self._replies[ident].done():
                    self._replies[ident].set_result(reply)
        except OSError as error:
            self._flush()  # send the TLS alert
            self._end(error)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Raise an error in all pending queries."""
        self._end(exc if isinstance(exc, OSError) else ConnectionError("the server closed the connection"))

    def _end(self, reason: OSError) -> None:
        if self.ended is None:
            self.ended = reason
        for future in self._replies.values():
            if not future.done():
                future.set_exception(self.ended)
        self.close()

    def _flush(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            data = self._channel.to_send()
        except OSError as error:
            self._end(error)
            return
        if data:
            self.sent += len(data)
            self._transport.write(data)
