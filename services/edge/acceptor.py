"""Listening socket that applies admission control and starts the TLS handshakes of accepted connections.

asyncio's TLS server reports connections only after a successful handshake, and failed handshakes not at all. Here,
every connection is counted and can be aborted from the moment it is accepted.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from edge.client import Client
from edge.proxied import ProxiedConnection
from tlsreload import TlsTransport

#: Length of the kernel's accept queue, in connections.
BACKLOG = 1024
#: SO_LINGER value with a time-out of 0 s, which makes close() send a reset.
_RESET = struct.pack("ii", 1, 0)


class Acceptor:
    """Listening socket of the edge and its connections in handshake."""

    def __init__(
        self,
        context: ssl.SSLContext | None,
        admit: Callable[[], Client | None],
        on_failed_handshake: Callable[[str, str], None],
        proxied: Callable[[], Callable[[str], bool] | None] = lambda: None,
    ) -> None:
        """Create an acceptor that does not listen yet.

        Args:
            context: TLS context; None for plain TCP.
            admit: returns the client object for a new connection, or None to reset the connection.
            on_failed_handshake: called with the client's address and a one-word reason when a TLS handshake or a PROXY
                header fails.
            proxied: returns a function that takes the peer's address and says whether the connection begins with a
                PROXY header; returns None if no connection begins with one.
        """
        self._context, self._admit = context, admit
        self._on_failed_handshake, self._proxied = on_failed_handshake, proxied
        self._handshakes: set[TlsTransport | ProxiedConnection] = set()
        self._server: asyncio.Server | None = None
        self.address = ("", 0)

    def __repr__(self) -> str:
        return f"<Acceptor {self.address[0]}:{self.address[1]} handshakes={len(self._handshakes)}>"

    async def listen(self, endpoint: tuple[str, int], *, shared: bool = False) -> None:
        """Listen on *endpoint* and set `address`; if *shared*, other processes may listen on the same port.

        Raises:
            OSError: the endpoint is in use or not local.
        """
        listening = socket.create_server(endpoint, backlog=BACKLOG, reuse_port=shared)
        self.address = listening.getsockname()[:2]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, sock=listening, backlog=BACKLOG)

    def close(self) -> None:
        """Stop accepting; handshakes in progress continue."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def abort(self) -> None:
        """Abort the handshakes in progress."""
        for handshake in tuple(self._handshakes):
            handshake.abort()

    def _protocol(self) -> asyncio.Protocol:
        """Return the first protocol of a new connection: for the PROXY header, TLS or plain HTTP, or `_Reset`."""
        client = self._admit()
        if client is None:
            return _Reset()
        if (expects := self._proxied()) is None:
            return self._secured(client)
        proxied = ProxiedConnection(
            client, expects, lambda: self._secured(client), partial(self._failed, client), self._handshakes.discard
        )
        self._handshakes.add(proxied)
        client.handshake = proxied
        return proxied

    def _secured(self, client: Client) -> asyncio.Protocol:
        """Return a TLS transport for *client*, or *client* itself if the listener has no TLS."""
        if self._context is None:
            return client
        handshake = TlsTransport(self._context, client, partial(self._failed, client), self._handshakes.discard)
        self._handshakes.add(handshake)
        client.handshake = handshake
        return handshake

    def _failed(self, client: Client, reason: str) -> None:
        """Report a failed handshake with the address that the PROXY header announced, or else the peer's."""
        peer = client.handshake.get_extra_info("peername") if client.handshake is not None else None
        self._on_failed_handshake(client.announced or (peer or ("",))[0], reason)


class _Reset(asyncio.Protocol):
    """Protocol of a connection that is reset, because the edge is full."""

    def connection_made(self, transport: Any) -> None:
        """Reset the connection, so that the client does not wait."""
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
