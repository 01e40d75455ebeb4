"""Connection from a load balancer: reads the PROXY header, then passes the transport to the TLS or HTTP protocol."""

import asyncio
from collections.abc import Callable
from typing import Any

from edge.client import Client
from edge.proxy_protocol import ProxyHeaderError, read_header


class ProxiedConnection(asyncio.Protocol):
    """Protocol of a new connection until its PROXY header is complete."""

    def __init__(
        self,
        client: Client,
        expects: Callable[[str], bool],
        follow: Callable[[], asyncio.Protocol],
        on_failure: Callable[[str], None],
        on_end: Callable[[Any], None],
    ) -> None:
        """Create a protocol that waits for its transport.

        Args:
            client: client object that receives the address from the header.
            expects: returns whether connections from a peer address begin with a header.
            follow: returns the next protocol of the connection, which reads TLS or HTTP.
            on_failure: called with a one-word reason if the header is invalid or incomplete.
            on_end: called when this protocol has ended, whether or not it succeeded.
        """
        self._client, self._expects, self._follow = client, expects, follow
        self._on_failure, self._on_end = on_failure, on_end
        self._transport: Any = None
        self._peer: Any = None
        self._data = b""
        self._aborted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Switch to the next protocol immediately if connections from this address have no header."""
        self._transport, self._peer = transport, transport.get_extra_info("peername")
        if not self._expects((self._peer or ("",))[0]):
            self._hand_over(b"")

    def data_received(self, data: bytes) -> None:
        """Buffer and parse the header; once it is complete, switch to the next protocol."""
        self._data += data
        try:
            header = read_header(self._data)
        except ProxyHeaderError:
            self.fail("proxy_header")
            return
        if header is not None:
            self._client.announced = header.address
            self._hand_over(self._data[header.length :])

    def eof_received(self) -> bool:
        """Report that the connection was closed before the header was complete."""
        self.fail("closed_by_client")
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - required by asyncio.Protocol
        """Unregister the client, and report a connection that was reset before the header was complete."""
        if not self._aborted:
            self._on_failure("reset_by_client")
        self._on_end(self)
        self._client.never_connected()

    def get_extra_info(self, name: str) -> Any:
        """Return information about the connection; ``peername`` is the load balancer's address."""
        return self._peer if name == "peername" else self._transport.get_extra_info(name)

    def fail(self, reason: str) -> None:
        """Report *reason* and cut the connection."""
        self._on_failure(reason)
        self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        self._aborted = True
        if self._transport is not None:
            self._transport.abort()

    def _hand_over(self, rest: bytes) -> None:
        self._on_end(self)
        follower = self._follow()
        self._transport.set_protocol(follower)
        follower.connection_made(self._transport)
        if rest:
            follower.data_received(rest)
