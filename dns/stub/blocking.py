"""Exchanges with a server over blocking sockets."""

import contextlib
import socket
import time
from typing import Self

from dnsmessage import Message
from stub.channel import channel
from stub.errors import MalformedReplyError
from stub.exchange import Exchange, Server, family, reply_to
from stub.message import parse
from stub.transport import Transport

#: Size of the receive buffer, in bytes.
_CHUNK = 65_536


def udp(wire: bytes, server: Server, timeout: float, exchange: Exchange) -> Message:
    """Send a query in a datagram and return the reply; raise `OSError` on failure or time-out."""
    deadline = time.monotonic() + timeout
    with socket.socket(family(server), socket.SOCK_DGRAM) as sock:
        sock.connect(server)
        sock.send(wire)
        exchange.sent += len(wire)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            received = sock.recv(_CHUNK)
            exchange.received += len(received)
            with contextlib.suppress(MalformedReplyError):
                reply = parse(wire, received)
                exchange.round_trips += 1
                return reply
    raise TimeoutError


class Stream:
    """A connection to a server, over TCP or TLS."""

    def __init__(self, transport: Transport, server: Server, timeout: float) -> None:
        """Connect to the server; raise `OSError` on failure."""
        self._channel = channel(transport, server[0])
        self._is_new = True
        self._sock = socket.create_connection(server, timeout)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def ask(self, wire: bytes, timeout: float, exchange: Exchange) -> Message:
        """Send a query and return the reply.

        Raises:
            OSError: the connection failed or ended (`ConnectionError`), TLS failed (`ssl.SSLError`), or *timeout*
                seconds have passed.
        """
        deadline = time.monotonic() + timeout
        ident = self._channel.submit(wire)
        while (left := deadline - time.monotonic()) > 0:
            self._sock.settimeout(left)
            self._flush(exchange)
            data = self._sock.recv(_CHUNK)
            if not data:
                raise ConnectionError("the server closed the connection")
            exchange.received += len(data)
            try:
                replies = self._channel.receive(data)
            except OSError:
                with contextlib.suppress(OSError):
                    self._flush(exchange)  # send the TLS alert
                raise
            self._flush(exchange)
            if ident in replies:
                exchange.round_trips += 1 + self._is_new * self._channel.setup_round_trips
                self._is_new = False
                return reply_to(wire, replies[ident])
        self._channel.withdraw(ident)
        raise TimeoutError

    def _flush(self, exchange: Exchange) -> None:
        if data := self._channel.to_send():
            self._sock.sendall(data)
            exchange.sent += len(data)
