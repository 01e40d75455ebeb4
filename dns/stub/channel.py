"""Queries on one connection, over TCP or TLS: framing, IDs, replies in any order (RFC 7766); sans-IO.

The caller does the I/O: it sends the bytes from `to_send` and passes received bytes to `receive`.
"""

import random
import ssl

from stub.errors import MalformedReplyError
from stub.message import parse
from stub.transport import Transport
from wireformat.tls import TlsConnection

_random = random.SystemRandom()


def channel(transport: Transport, server: str) -> "Channel":
    """Return the state of a new connection to *server*, an IP address."""
    if transport.kind == "https":
        from stub.https import HttpsChannel  # noqa: PLC0415 - h2 is imported only where it is used

        return HttpsChannel(transport, server)
    return Channel(transport, server)


class Channel:
    """The client's end of one connection."""

    def __init__(self, transport: Transport, server: str) -> None:
        """Create the state of a new connection to *server*, an IP address."""
        self._tls = None
        if transport.context is not None:
            self._tls = TlsConnection(transport.context, transport.name or server)
        #: Whether TLS has failed; after a failure, only the TLS alert is still sent.
        self._failed = False
        self._out, self._in = bytearray(), bytearray()
        #: Queries without a reply, keyed by ID.
        self._pending: dict[int, bytes] = {}

    def __repr__(self) -> str:
        return f"<Channel {'tls' if self._tls else 'tcp'} pending={len(self._pending)}>"

    @property
    def setup_round_trips(self) -> int:
        """Number of round trips for the TCP and TLS handshakes (RFC 8446 section 2)."""
        if self._tls is None:
            return 1
        return 2 if self._tls.object.version() == "TLSv1.3" else 3

    def submit(self, wire: bytes) -> int:
        """Queue a query; return the ID that identifies the query and its reply on this connection."""
        ident = int.from_bytes(wire[:2], "big")
        while ident in self._pending:
            ident = _random.getrandbits(16)
        query = ident.to_bytes(2, "big") + wire[2:]
        self._pending[ident] = query
        self._out += len(query).to_bytes(2, "big") + query
        return ident

    def withdraw(self, ident: int) -> None:
        """Stop waiting for a reply; if it still arrives, it is discarded."""
        self._pending.pop(ident, None)

    def to_send(self) -> bytes:
        """Return the bytes to send now.

        Raises:
            ssl.SSLError: TLS failed.
        """
        if self._tls is None:
            data, self._out = bytes(self._out), bytearray()
            return data
        if not self._failed and self._tls.handshake() and self._out:
            self._protocol(self._tls.object.selected_alpn_protocol())
            self._tls.write(bytes(self._out))
            self._out.clear()
        return self._tls.to_send()

    def receive(self, data: bytes) -> dict[int, bytes]:
        """Process received bytes; return the replies to pending queries, keyed by ID.

        Raises:
            ssl.SSLError: TLS failed, for example because the server's certificate is invalid.
            ConnectionError: the server closed the connection.
            ProtocolError: the server violates the protocol or refuses the request.
        """
        if self._tls is None:
            self._in += data
        else:
            self._decrypt(self._tls, data)
        return self._replies()

    def _protocol(self, chosen: str | None) -> None:
        """Check *chosen*, the application protocol that the server selected (ALPN); None if it selected none.

        Raises:
            ProtocolError: the server does not speak the protocol of this channel.
        """

    def _replies(self) -> dict[int, bytes]:
        """Return the complete replies in the bytes received so far, keyed by query ID."""
        replies = {}
        while len(self._in) >= 2 and len(self._in) >= 2 + (size := int.from_bytes(self._in[:2], "big")):
            reply = bytes(self._in[2 : 2 + size])
            del self._in[: 2 + size]
            ident = int.from_bytes(reply[:2], "big")
            query = self._pending.get(ident)
            if query is None:
                continue
            try:
                parse(query, reply)
            except MalformedReplyError:
                continue  # not the reply to this query; the right reply may still arrive
            del self._pending[ident]
            replies[ident] = reply
        return replies

    def _decrypt(self, tls: TlsConnection, data: bytes) -> None:
        tls.receive(data)
        try:
            while tls.handshake() and (plain := tls.read()) is not None:
                if not plain:
                    raise ConnectionError("the server closed the connection")
                self._in += plain
        except ssl.SSLError:
            self._failed = True
            raise
