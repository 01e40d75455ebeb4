"""One listening socket: accepts connections, asks which clients are admitted, and begins their TLS handshakes.

asyncio's own server reports a connection only after its handshake has succeeded, and a failed one not at all; here every
connection is known, and can be cut, from the moment it is accepted.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from functools import partial

from edge.client import Client
from edge.tls import TlsTransport
from telemetry import log

logger = log.get("edge")

#: Connections that the kernel queues until they are accepted.
BACKLOG = 1024
#: Connections accepted per readiness event: enough to amortise it, few enough for the others to be served in between.
BATCH = 64
#: Seconds without accepting after the system had no descriptor or memory for another connection.
RESPITE = 0.1
#: SO_LINGER of 0 s: close with a reset.
_RESET = struct.pack("ii", 1, 0)


class Acceptor:
    """A listening socket."""

    def __init__(
        self,
        endpoint: tuple[str, int],
        context: ssl.SSLContext | None,
        admit: Callable[[], Client | None],
        on_failed_handshake: Callable[[str], None],
    ) -> None:
        """Listen on *endpoint*.

        Args:
            endpoint: address and port.
            context: for TLS; None for plain TCP.
            admit: gives the client for a new connection, or None to reset it.
            on_failed_handshake: hears why a TLS handshake failed, in one word.

        Raises:
            OSError: the endpoint is taken, or not ours.
        """
        self._socket = socket.create_server(endpoint, backlog=BACKLOG)
        self._socket.setblocking(False)
        self._context, self._admit = context, admit
        self._on_failed_handshake = on_failed_handshake
        self._entering: set[asyncio.Task[None]] = set()
        self._handshakes: set[TlsTransport] = set()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._loop.add_reader(self._socket, self._readable)

    def __repr__(self) -> str:
        return f"<Acceptor {self.address[0]}:{self.address[1]} handshakes={len(self._handshakes)}>"

    @property
    def address(self) -> tuple[str, int]:
        """The address and port on which clients are served."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def close(self) -> None:
        """Stop accepting; handshakes under way go on."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._socket.close()

    async def abort(self) -> None:
        """End the handshakes under way."""
        for task in tuple(self._entering):
            task.cancel()
        await asyncio.gather(*self._entering, return_exceptions=True)
        for handshake in tuple(self._handshakes):
            handshake.abort()

    def _readable(self) -> None:
        for _ in range(BATCH):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # ENFILE, EMFILE, ENOBUFS, ENOMEM: clients wait in the backlog
                logger.error("accept_failed", error=error.strerror, again_in_s=RESPITE)
                self._loop.remove_reader(self._socket)
                self._loop.call_later(RESPITE, self._resume)
                return
            client = self._admit()
            if client is None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.close()
                continue
            # The event loop makes the socket non-blocking and switches TCP_NODELAY on.
            task = self._loop.create_task(self._enter(connection, self._protocol(client)))
            self._entering.add(task)
            task.add_done_callback(partial(self._entered, connection, client))

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._socket, self._readable)

    def _protocol(self, client: Client) -> asyncio.Protocol:
        """Return what reads the socket: the client itself, or TLS in front of it."""
        if self._context is None:
            return client
        handshake = TlsTransport(self._context, client, self._on_failed_handshake, self._handshakes.discard)
        self._handshakes.add(handshake)
        client.handshake = handshake
        return handshake

    async def _enter(self, connection: socket.socket, protocol: asyncio.Protocol) -> None:
        await self._loop.connect_accepted_socket(lambda: protocol, connection)

    def _entered(self, connection: socket.socket, client: Client, task: asyncio.Task[None]) -> None:
        """The event loop has the socket now, unless it was cancelled before, or the connection is gone already."""
        self._entering.discard(task)
        if task.cancelled() or task.exception() is not None:
            connection.close()
            client.never_connected()
