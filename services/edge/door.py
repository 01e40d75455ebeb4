"""One listening socket: accepts, asks who may come in, and sees each through its TLS handshake.

asyncio's own server tells nobody about a connection before its handshake has succeeded, nor when it fails; here each is
known, and can be cut, from the moment it is accepted.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from functools import partial

from edge.client import Client
from telemetry import log

logger = log.get("edge")

#: Connections that the kernel keeps for us.
BACKLOG = 1024
#: Connections accepted per readiness event: enough to amortise it, few enough to let those inside get on.
BATCH = 64
#: Seconds for a client's TLS handshake.
HANDSHAKE_TIMEOUT = 10.0
#: Seconds without accepting after the system had no descriptor or memory for one connection more.
RESPITE = 0.1
#: SO_LINGER of 0 s: close with a reset.
_RESET = struct.pack("ii", 1, 0)


class Door:
    """A listening socket."""

    def __init__(
        self, endpoint: tuple[str, int], context: ssl.SSLContext | None, admit: Callable[[], Client | None]
    ) -> None:
        """Listen on *endpoint*; *admit* gives the client for a connection, or None to reset it.  Raises `OSError`."""
        self._socket = socket.create_server(endpoint, backlog=BACKLOG)
        self._socket.setblocking(False)
        self._context, self._admit = context, admit
        self._entering: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._loop.add_reader(self._socket, self._readable)

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that clients are served on."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def close(self) -> None:
        """Accept no more; handshakes that are under way go on."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._socket.close()

    async def abort(self) -> None:
        """End the handshakes that are under way."""
        for task in tuple(self._entering):
            task.cancel()
        await asyncio.gather(*self._entering, return_exceptions=True)

    def _readable(self) -> None:
        for _ in range(BATCH):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # ENFILE, EMFILE, ENOBUFS, ENOMEM: they wait in the backlog
                logger.error("accept_failed", error=error.strerror, again_in_s=RESPITE)
                self._loop.remove_reader(self._socket)
                self._loop.call_later(RESPITE, self._resume)
                return
            client = self._admit()
            if client is None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.close()
                continue
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = client.entering = self._loop.create_task(self._enter(connection, client))
            self._entering.add(task)
            task.add_done_callback(partial(self._entered, connection, client))

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._socket, self._readable)

    async def _enter(self, connection: socket.socket, client: Client) -> None:
        timeout = None if self._context is None else HANDSHAKE_TIMEOUT
        try:
            await self._loop.connect_accepted_socket(
                lambda: client, connection, ssl=self._context, ssl_handshake_timeout=timeout
            )
        except OSError:  # no handshake, or none in time: the client knows why
            client.never_connected()

    def _entered(self, connection: socket.socket, client: Client, task: asyncio.Task[None]) -> None:
        """Its handshake ended; also where it was cut before it began, and none of the above has run."""
        self._entering.discard(task)
        if task.cancelled():
            connection.close()
            client.never_connected()
