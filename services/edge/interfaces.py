"""Interfaces between clients, exchanges and the proxy, as typing protocols, so that they do not import each other.

Client (Peer, Downstream, Responder)  ◀──▶  Proxy (Service)  ──▶  Exchange (Work)
"""

import asyncio
from typing import Any, Protocol

from edge.errors import EdgeError
from edge.glimpse import Glimpse
from edge.heads import RequestHead, ResponseHead
from edge.timeouts import Timeouts


class Downstream(Protocol):
    """Client side of an exchange, for any HTTP version."""

    #: Whether the client's write buffer is full, because the client reads slowly.
    paused: bool
    #: Header lines that complete `RequestHead.forward`: the client's address and connection parameters.
    suffix: bytes
    #: Whether the exchange uses pooled origin connections.
    pooled: bool
    #: Whether the client's X-Forwarded-For is discarded.
    distrusted: bool
    #: Serial number of the client's certificate; 0 without a certificate.
    certificate: int

    def begin_response(self, head: ResponseHead, fields: bytes, payload: bytes, *, bodiless: bool, whole: bool) -> None:
        """Send the head, additional *fields* and the first *payload*; *whole* means that the response is complete."""

    def interim(self, head: ResponseHead) -> None:
        """Send an interim response (1xx)."""

    def body(self, payload: bytes) -> None:
        """Send part of the response body; does nothing after the client has disconnected."""

    def pause_reading(self) -> None:
        """Stop reading the request body."""

    def resume_reading(self) -> None:
        """Resume reading the request body."""

    def unsent(self) -> int:
        """Return the number of buffered response bytes that have not been sent yet."""

    def finished(self, *, cut: bool) -> None:
        """End the response; a response that was *cut* short must not appear complete to the client."""

    def failed(self, error: EdgeError) -> None:
        """Send an error response; no part of a response has been sent yet."""

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """Send a 101 response and *data*; all further bytes from the client belong to the new protocol."""


class Responder(Downstream, Protocol):
    """Client side of a request, as used by the service."""

    #: URI scheme of the request: ``http`` or ``https``.
    scheme: str
    #: Value of the ``listener`` label in metrics.
    listener: str
    #: The client's IP address.
    address: str
    #: Head of the current request, or its known values if the head is invalid; None if no value is known.
    asked: RequestHead | Glimpse | None
    #: Time at which the current request began to arrive, on the `time.monotonic` clock.
    began: float

    def respond(self, status: int, body: bytes, kind: bytes, *, more: bytes = b"", head_only: bool = False) -> None:
        """Send a response that the edge itself generates."""


class Work(Protocol):
    """Request in progress, as used by its client connection."""

    began: float
    status: int
    answered: bool
    head_only: bool

    def start(self) -> None:
        """Forward the request; `Client.finished` or `Client.failed` ends it, possibly before this method returns."""

    def receive_body(self, payload: bytes) -> None:
        """Process part of the request body."""

    def receive_end(self) -> None:
        """Process the end of the request body."""

    def tunnel_data(self, data: bytes) -> None:
        """Forward bytes of the protocol that both sides have switched to."""

    def client_writable(self, *, writable: bool) -> None:
        """Resume or pause the response, depending on whether the client's send buffer has room."""

    def abandon(self) -> None:
        """Cancel the request, because the client has disconnected or its request cannot be completed."""


class Peer(Protocol):
    """Client connection of any HTTP version."""

    address: str
    tls: bool
    #: Whether the connection was accepted only to send a 503 response, because the edge is full.
    rejected: bool
    #: Whether the client's X-Forwarded-For is discarded.
    distrusted: bool
    #: Header fields that are added to every response.
    more: bytes
    transport: Any
    #: TLS version and whether the session was resumed; None without TLS.
    session: tuple[str, bool] | None
    #: Time at which `expire` must be called, on the `time.monotonic` clock.
    deadline: float

    @property
    def quiet_since(self) -> float | None:
        """When the connection last became idle, on the monotonic clock; None during a request or while closing."""

    def refuse(self, error: EdgeError) -> None:
        """Send an error response and close the connection."""

    def drain(self) -> None:
        """Close an idle connection immediately, and a busy one after its response."""

    def evict(self) -> None:
        """Close an idle keep-alive connection to make room for another client."""

    def expire(self, now: float) -> None:
        """Handle the time-out that occurred at `deadline`."""

    def abort(self) -> None:
        """Cut the connection without sending buffered data."""


class Service(Protocol):
    """Server of client requests (implemented by `Proxy`)."""

    timeouts: Timeouts

    def handle(self, client: Responder, head: RequestHead) -> Work | None:
        """Return an unstarted `Work` for a request, or None if the service has already responded itself.

        Raises:
            EdgeError: the request is rejected.
        """

    def connected(self, client: Peer) -> None:
        """Register a client connection whose TLS handshake, if any, is complete."""

    def disconnected(self, client: Peer) -> None:
        """Unregister a client whose connection has ended."""

    def http2(self, client: Any) -> asyncio.Protocol:
        """Return the protocol that replaces *client* (an `edge.client.Client`) after ALPN has selected HTTP/2."""

    def done(self, client: Responder, work: Work | None, status: int | str, reason: str = "") -> None:
        """Record a finished request.

        Args:
            client: the client side of the request.
            work: the forwarded request; None if the edge has answered the request itself.
            status: status code, or a word such as ``aborted`` for an incomplete response.
            reason: why the edge has sent an error; empty for any other response.
        """

    def keep_alive_limit(self) -> float | None:
        """Return the idle time-out in seconds that the fault `short_keep_alive` sets; None while the fault is off."""


class Handshake(Protocol):
    """TLS handshake or PROXY header in progress."""

    def get_extra_info(self, name: str) -> Any:
        """Return information about the connection; ``peername`` is the peer's socket address."""

    def fail(self, reason: str) -> None:
        """End the handshake and report *reason* as the cause."""

    def abort(self) -> None:
        """Cut the connection without a TLS alert."""
