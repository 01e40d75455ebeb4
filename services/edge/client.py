"""Client connection for HTTP/1.x: parses requests in order and passes each to the service (RFC 9112).

The next request is parsed only after the response to the current one has been sent, so pipelined requests stay in the
buffer and responses keep their order. When the buffer is full, the edge stops reading from the client.
"""

import asyncio
import time
from enum import Enum
from typing import Any

from edge.bodies import Body, BodyError, request_body
from edge.body_rate import BodyRate
from edge.connection_info import describe
from edge.errors import BadRequestError, EdgeError
from edge.glimpse import Glimpse, of_bytes
from edge.heads import RequestHead, ResponseHead, early_refusal, request_head
from edge.http1_responses import framed, own
from edge.interfaces import Handshake, Service, Work
from edge.remembered import Remembered
from edge.upstream import HIGH_WATER

#: Maximum size of pipelined requests that are buffered while another request is served, in bytes.
READ_AHEAD = 64 * 1024
_NEVER = float("inf")

#: Cached parser for request heads; clients often send the same head repeatedly.
read_head: Remembered[RequestHead] = Remembered(request_head)


class State(Enum):
    """State of a client connection.

    NEW ─▶ HEAD ─▶ BODY ─▶ SERVED ─▶ IDLE ─▶ HEAD …      a request without a body skips BODY
    any ─▶ CLOSING ─▶ (closed)                           buffered output is sent first
    BODY, SERVED ─▶ TUNNEL                               another protocol (RFC 9110 section 7.8)
    """

    #: No byte has been received yet.
    NEW = "new"
    #: Part of a request head has been received.
    HEAD = "head"
    #: The request body is being received; the response may already have begun.
    BODY = "body"
    #: The request has been received completely; its response is not complete yet.
    SERVED = "served"
    #: Waiting for the next request.
    IDLE = "idle"
    #: The connection has switched protocols, and bytes are forwarded unchanged.
    TUNNEL = "tunnel"
    #: Further input is discarded.
    CLOSING = "closing"


class Client(asyncio.Protocol):
    """Client connection that speaks HTTP/1.x."""

    # Initial values that most connections never change are class attributes, which saves 1 µs per connection.

    #: Whether the client's X-Forwarded-For is discarded.
    distrusted = False
    #: Header fields that are added to every response.
    more = b""
    state = State.NEW
    #: Whether the connection is closed after the current response.
    close_after = False
    #: Whether the transport's write buffer is full, because the client reads slowly.
    paused = False
    transport: Any = None
    address = ""
    #: Head of the current request, or its known values if the head is invalid; None before the first request.
    asked: RequestHead | Glimpse | None = None
    #: The client's address from the PROXY header; empty without a header.
    announced = ""
    #: Header lines that complete `RequestHead.forward`: the client's address and connection parameters.
    suffix = b""
    #: TLS version and whether the session was resumed; None without TLS.
    session: tuple[str, bool] | None = None
    #: Serial number of the client's certificate; 0 without a certificate.
    certificate = 0
    #: Object that handles the TLS handshake or PROXY header in progress; None at any other time.
    handshake: Handshake | None = None
    _buffer = b""
    _reading = True
    _advancing = False
    _body: Body | None = None
    #: Arrival rate of the current request body; None if there is no body.
    _rate: BodyRate | None = None
    _work: Work | None = None
    _expects = _chunked = False
    #: Whether the client speaks HTTP/1.1 rather than 1.0.
    _modern = True
    _unsent = 0
    #: Timer for the exact idle time-out that `Service.keep_alive_limit` sets.
    _closer: asyncio.TimerHandle | None = None

    def __init__(
        self, service: Service, *, scheme: str, pooled: bool, rejected: bool = False, mutual: bool = False
    ) -> None:
        """Create a connection that waits for its transport.

        Args:
            service: serves the requests.
            scheme: URI scheme of the requests, ``http`` or ``https``.
            pooled: whether requests use pooled origin connections.
            rejected: whether the connection is accepted only to send a 503 response, because the edge is full.
            mutual: whether the client presents a certificate; the names in it are forwarded to origins.
        """
        self.service, self.scheme, self.pooled, self.rejected, self.mutual = service, scheme, pooled, rejected, mutual
        #: Value of the ``listener`` label in metrics.
        self.listener = scheme if pooled else f"{scheme}-fresh"
        self.tls = scheme == "https"
        #: End of the last request, or start of the connection, on the monotonic clock.
        self._since = time.monotonic()
        #: Time at which the current request began to arrive, on the monotonic clock.
        self.began = self._since
        self.deadline = self._since + service.timeouts.handshake

    def __repr__(self) -> str:
        return f"<Client {self.address or '?'} {self.scheme} {self.state.value} buffered={len(self._buffer)}>"

    @property
    def quiet_since(self) -> float | None:
        """When the connection last became idle, on the monotonic clock; None during a request or while closing.

        Bytes of an incomplete TLS handshake do not count as a request, so sending them slowly does not prevent
        eviction.
        """
        return self._since if self.state in {State.NEW, State.IDLE} and not self.rejected else None

    # --- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.handshake = transport, None
        self.address = self.announced or (transport.get_extra_info("peername") or ("", 0))[0]
        self.suffix, self.session, self.certificate = describe(transport, self.address, self.scheme, mutual=self.mutual)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.deadline = time.monotonic() + self.service.timeouts.head
        self.service.connected(self)
        if self.rejected:
            self.refuse(EdgeError(503, "as many clients are connected as this edge serves"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - signature of asyncio.Protocol
        self.transport = None
        self.state = State.CLOSING
        self._cancel_closer()
        work, self._work = self._work, None
        if work is not None:
            work.abandon()
            self.service.done(self, work, "aborted")
        self.service.disconnected(self)

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state is State.IDLE or state is State.NEW:
            self._cancel_closer()
            now = self.began = time.monotonic()
            self.state, self.deadline = State.HEAD, now + self.service.timeouts.head
            self._buffer = data
            self._advance()
        elif state is State.TUNNEL:
            if self._work is not None:
                self._work.tunnel_data(data)
        elif state is not State.CLOSING:
            self._buffer = self._buffer + data if self._buffer else data
            if state is State.SERVED:
                if len(self._buffer) > READ_AHEAD:
                    self.pause_reading()
            else:
                self._advance()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.paused = True
        if self._work is not None:
            self._work.client_writable(writable=False)

    def resume_writing(self) -> None:
        self.paused = False
        if self._work is not None:
            self._work.client_writable(writable=True)

    def negotiated(self, protocol: str | None) -> asyncio.Protocol:
        """Return the protocol that reads the connection after ALPN (RFC 7301): this object, or one for HTTP/2."""
        return self.service.http2(self) if protocol == "h2" else self

    # --- called by the service and the exchange -----------------------------------------------------------------------

    def begin_response(self, head: ResponseHead, fields: bytes, payload: bytes, *, bodiless: bool, whole: bool) -> None:
        """Send the head, additional *fields* and the first *payload* in one write; *whole* completes the response."""
        if self.state is State.BODY:
            self.close_after = True  # the rest of the request body is not read, so the connection cannot be reused
        data, self._chunked, self.close_after = framed(
            head, fields + self.more, payload, bodiless, whole, self._modern, self.close_after
        )
        self._write(data, last=whole)

    def interim(self, head: ResponseHead) -> None:
        """Send an interim response, except to HTTP/1.0 clients, for which none is defined."""
        if self._modern:
            self._write(head.forward + b"\r\n")

    def body(self, payload: bytes) -> None:
        """Send part of the response body; does nothing after the client has disconnected."""
        self._write(b"%x\r\n%b\r\n" % (len(payload), payload) if self._chunked else payload)

    def _write(self, data: bytes, *, last: bool = False) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if last and self.close_after and self.tls:
            self.transport.write_last(data)
        else:
            self.transport.write(data)

    def unsent(self) -> int:
        """Return the size of the transport's write buffer in bytes."""
        return 0 if self.transport is None else int(self.transport.get_write_buffer_size())

    def pause_reading(self) -> None:
        """Stop reading from the client."""
        if self._reading and self.transport is not None:
            self._reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading from the client."""
        if not self._reading and self.transport is not None:
            self._reading = True
            if self._rate is not None:
                self._rate.resumed(time.monotonic())
            self.transport.resume_reading()

    def finished(self, *, cut: bool) -> None:
        """End the response; if it was *cut* short, abort the connection so that the client notices the truncation."""
        work, self._work = self._work, None
        if work is not None:
            self.service.done(self, work, "truncated" if cut else work.status)
        chunked, self._chunked = self._chunked, False
        if chunked and not cut:
            self._write(b"0\r\n\r\n")
        if cut:
            self.state = State.CLOSING
            self.abort()
        else:
            self._next()

    def failed(self, error: EdgeError) -> None:
        """Send an error response to the current request."""
        work, self._work = self._work, None
        head_only = work is not None and work.head_only
        if self.state is State.BODY:
            self.close_after = True  # the rest of the request body is not read, so the connection cannot be reused
        self.respond(error.status, error.body(), b"application/json", head_only=head_only)
        self.service.done(self, work, error.status, error.reason)
        self._next()

    def respond(self, status: int, body: bytes, kind: bytes, *, more: bytes = b"", head_only: bool = False) -> None:
        """Send a response that the edge itself generates."""
        more += self.more
        self._write(own(status, body, kind, more, time.time(), head_only=head_only, closes=self.close_after))

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """Send a 101 response and *data*, then forward all further bytes unchanged."""
        self._write(b"%bconnection: upgrade\r\nupgrade: %b\r\n\r\n%b" % (head.forward, head.upgrade, data))
        self.state, self.close_after, self.deadline = State.TUNNEL, True, _NEVER
        rest, self._buffer = self._buffer, b""
        if rest and self._work is not None:
            self._work.tunnel_data(rest)
        self.resume_reading()

    # --- called by the proxy ------------------------------------------------------------------------------------------

    def never_connected(self) -> None:
        """Unregister the client, because the connection ended before its TLS handshake was complete."""
        self.state, self.handshake, self.deadline = State.CLOSING, None, _NEVER
        self.service.disconnected(self)

    def evict(self) -> None:
        """Close an idle keep-alive connection to make room for another client."""
        self.state = State.CLOSING
        if self.transport is None:
            if self.handshake is not None:
                self.handshake.abort()
            return
        self.transport.close()
        asyncio.get_running_loop().call_later(self.service.timeouts.linger, self.abort)

    def abort(self) -> None:
        """Cut the connection without sending buffered data."""
        if self.transport is not None:
            self.transport.abort()
        elif self.handshake is not None:
            self.handshake.abort()

    def drain(self) -> None:
        """Close an idle connection immediately, and a busy one after its response."""
        self.close_after = True
        if self.state in {State.NEW, State.IDLE} and self.transport is not None:
            self._close()

    def expire(self, now: float) -> None:
        """Handle the time-out that occurred at `deadline`."""
        limits = self.service.timeouts
        if self.transport is None:
            if self.handshake is not None:
                self.handshake.fail("timeout")
            return
        if self.state is State.NEW:
            self._close()  # send no 408: a browser that preconnected would take it for the answer to its first request
        elif self.state is State.IDLE:
            if self._drains(now, limits.send):
                return
            self._close()
        elif self.state is State.HEAD:
            self.refuse(BadRequestError(408, f"no complete request head within {limits.head:g} s"))
        elif self.state is State.BODY:
            self._check_body(now)
        elif self.state is State.CLOSING and not self._drains(now, limits.send):
            self.abort()

    def _drains(self, now: float, patience: float) -> bool:
        """Return whether the client has read some output since the last check; if so, extend the deadline."""
        before, self._unsent = self._unsent, self.unsent()
        if self._unsent and (not before or self._unsent < before):
            self.deadline = now + patience
            return True
        return False

    def _check_body(self, now: float) -> None:
        if self._rate is None:
            return
        if reason := self._rate.stalls(now, reading=self._reading):
            self.refuse(BadRequestError(408, reason))
        else:
            self.deadline = self._rate.deadline

    # --- request parsing ----------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Parse as much of the buffer as the current state allows."""
        if self._advancing:  # recursive call: the outer call's loop has already sent a response
            return
        self._advancing = True
        try:
            while self._buffer and (
                self._take_head() if self.state is State.HEAD else self.state is State.BODY and self._take_body()
            ):
                pass
        except EdgeError as error:
            self.refuse(error)
        finally:
            self._advancing = False

    def _take_head(self) -> bool:
        """Parse a request head and start serving the request; return False if the head is incomplete."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n") + 4
        if buffer[:1] == b"\r":
            while buffer.startswith(b"\r\n"):  # ignore empty lines before a request (RFC 9112 section 2.2)
                buffer = buffer[2:]
            self._buffer = buffer
            end = buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            if (refusal := early_refusal(buffer)) is not None:
                raise refusal
            return False
        self.asked = head = read_head(buffer[:end])
        self._buffer = buffer[end:]
        self.close_after, self._modern = self.close_after or head.close, head.modern
        if head.has_body:
            now = time.monotonic()
            self.state, self._body, self._expects = State.BODY, request_body(head.framing), head.expects
            self._rate = BodyRate(self.service.timeouts, now)
            self.deadline = self._rate.deadline
        else:
            self.state, self.deadline = State.SERVED, _NEVER
        try:
            self._work = work = self.service.handle(self, head)
        except EdgeError as error:
            self.failed(error)
            return True
        if work is None:
            self._next()
            return True
        work.start()
        if self._expects and not self._buffer and self.state is State.BODY:
            self._expects = False
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _take_body(self) -> bool:
        """Forward the buffered part of the request body."""
        body = self._body
        data, self._buffer = self._buffer, b""
        if body is None or self._rate is None:
            return False
        self._rate.received(len(data), time.monotonic())
        try:
            payload = body.feed(data)
        except BodyError as error:
            raise BadRequestError(400, f"expected an HTTP request's body: {error}") from None
        if body.done:
            self._buffer, self._body = body.rest, None
            self.state, self.deadline = State.SERVED, _NEVER
        work = self._work
        if work is not None:
            if payload:
                work.receive_body(payload)
            if body.done:
                work.receive_end()
        return True

    def _next(self) -> None:
        """Close the connection after a response, or process the next request."""
        if self.transport is None:
            return
        if self.state is State.BODY:
            self.close_after = True  # the rest of the request body is not read, so the connection cannot be reused
        if self.close_after:
            if self.state is State.BODY:
                self._linger()
            else:
                self._close()
            return
        self.resume_reading()
        now = self._since = time.monotonic()
        if self._buffer:
            self.began = now
            self.state, self.deadline = State.HEAD, now + self.service.timeouts.head
            self._advance()
            return
        self.state, self.deadline, self._unsent = State.IDLE, now + self.service.timeouts.idle, 0
        if (silence := self.service.keep_alive_limit()) is not None:
            self._closer = asyncio.get_running_loop().call_later(silence, self._close_when_silent)

    def refuse(self, error: EdgeError) -> None:
        """Send an error response and close, because the start of the next request is unknown."""
        work, self._work = self._work, None
        self.close_after = True
        if self.state is State.HEAD:
            self.asked = of_bytes(self._buffer)
        if work is not None:
            work.abandon()
            if work.answered:  # the response has begun, so an error response is no longer possible
                self.service.done(self, work, "truncated")
                self.state = State.CLOSING
                self.abort()
                return
        if self.transport is None:
            return
        self.respond(error.status, error.body(), b"application/json")
        if not self.rejected:
            self.service.done(self, work, error.status, error.reason)
        self._linger()

    def _linger(self) -> None:
        """Close after a delay, because an immediate close could destroy the response (RFC 9112 section 9.6)."""
        self.state, self._buffer = State.CLOSING, b""
        self._cancel_closer()
        if self.transport is None or self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume_reading()
        self.deadline = _NEVER
        asyncio.get_running_loop().call_later(self.service.timeouts.linger, self._end_linger)

    def _end_linger(self) -> None:
        if self.transport is not None:
            if self.unsent():
                self._close()
            else:
                self.transport.abort()

    def _close(self) -> None:
        """Close after sending the buffered output; if the client does not read it, `expire` aborts the connection."""
        self.state = State.CLOSING
        self._cancel_closer()
        if self.transport is not None:
            self._unsent = self.unsent()
            self.deadline = time.monotonic() + self.service.timeouts.send
            self.transport.close()

    def _cancel_closer(self) -> None:
        if self._closer is not None:
            self._closer.cancel()
            self._closer = None

    def _close_when_silent(self) -> None:
        self._closer = None
        if self.state is State.IDLE:
            self._close()
