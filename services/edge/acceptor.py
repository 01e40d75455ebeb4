"""One listening socket: asks which connections are admitted, and begins their TLS handshakes.

asyncio's own TLS server reports a connection only after its handshake has succeeded, and a failed one not at all; here
every connection is known, and can be cut, from the moment it is accepted.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

from edge.client import Client
from edge.tls import TlsTransport

#: Connections that the kernel queues until they are accepted.
BACKLOG = 1024
#: SO_LINGER of 0 s: close with a reset.
_RESET = struct.pack("ii", 1, 0)


class Acceptor:
    """A listening socket."""

    def __init__(
        self,
        context: ssl.SSLContext | None,
        admit: Callable[[], Client | None],
        on_failed_handshake: Callable[[str], None],
    ) -> None:
        """Make one that does not listen yet.

        Args:
            context: for TLS; None for plain TCP.
            admit: gives the client for a new connection, or None to reset it.
            on_failed_handshake: hears why a TLS handshake failed, in one word.
        """
        self._context, self._admit = context, admit
        self._on_failed_handshake = on_failed_handshake
        self._handshakes: set[TlsTransport] = set()
        self._server: asyncio.Server | None = None
        self.address = ("", 0)

    def __repr__(self) -> str:
        return f"<Acceptor {self.address[0]}:{self.address[1]} handshakes={len(self._handshakes)}>"

    async def listen(self, endpoint: tuple[str, int]) -> None:
        """Accept connections on *endpoint*; `address` says where.

        Raises:
            OSError: the endpoint is taken, or not ours.
        """
        listening = socket.create_server(endpoint, backlog=BACKLOG)
        self.address = listening.getsockname()[:2]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._protocol, sock=listening, backlog=BACKLOG)

    def close(self) -> None:
        """Stop accepting; handshakes under way go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def abort(self) -> None:
        """End the handshakes under way."""
        for handshake in tuple(self._handshakes):
            handshake.abort()

    def _protocol(self) -> asyncio.Protocol:
        """Return what reads a new connection: the client itself, TLS in front of it, or nothing at all."""
        client = self._admit()
        if client is None:
            return _Reset()
        if self._context is None:
            return client
        handshake = TlsTransport(self._context, client, self._on_failed_handshake, self._handshakes.discard)
        self._handshakes.add(handshake)
        client.handshake = handshake
        return handshake


class _Reset(asyncio.Protocol):
    """A connection for which there is no room."""

    def connection_made(self, transport: Any) -> None:
        """Reset it, so that the client does not wait."""
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
