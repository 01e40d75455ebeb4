"""One client connection: reads requests, one after the other, and has each one served (RFC 9112).

The next request is read when the response to the one before has been sent: pipelined requests wait as bytes, so that
nothing can overtake a response.  A client that sends more than is buffered is not read from.
"""

import asyncio
import re
import ssl
import time
from email.utils import formatdate
from enum import Enum
from functools import cache
from typing import Any, Protocol

from edge.bodies import Body, BodyError, request_body
from edge.errors import REASONS, BadRequestError, EdgeError
from edge.exchange import Responder
from edge.heads import RequestHead, ResponseHead, early_refusal, request_head
from edge.remembered import Remembered
from edge.timeouts import Timeouts
from edge.upstream import HIGH_WATER

#: Bytes of later requests that are buffered while one is served.
READ_AHEAD = 64 * 1024
_NEVER = float("inf")
_NAME = re.compile(r"[A-Za-z0-9.*_-]{1,253}")

#: Heads of requests, which are much the same from one to the next.
read_head: Remembered[RequestHead] = Remembered(request_head)


class State(Enum):
    """Where a client connection is.

    NEW ─▶ HEAD ─▶ BODY ─▶ SERVED ─▶ IDLE ─▶ HEAD …      a request without a body skips BODY
    any ─▶ CLOSING ─▶ (gone)                             what is left to send is sent first
    BODY, SERVED ─▶ TUNNEL                               another protocol (RFC 9110 section 7.8)
    """

    #: No byte has come yet.
    NEW = "new"
    #: A head has begun.
    HEAD = "head"
    #: The body of the request is being received; its response may have begun.
    BODY = "body"
    #: The request is whole, its response is not.
    SERVED = "served"
    #: Between two requests.
    IDLE = "idle"
    #: Bytes are passed on as they come.
    TUNNEL = "tunnel"
    #: Nothing that comes is read any more.
    CLOSING = "closing"


class Work(Protocol):
    """The request that is being served, as far as its client has to know it."""

    began: float
    status: int
    answered: bool
    head_only: bool

    def start(self) -> None:
        """Forward the request; `Client.finished` or `Client.failed` ends it, perhaps before this returns."""

    def receive_body(self, payload: bytes) -> None:
        """Take some of the body."""

    def receive_end(self) -> None:
        """The body is whole."""

    def tunnel_data(self, data: bytes) -> None:
        """Take bytes of the protocol that both sides switched to."""

    def client_writable(self, *, writable: bool) -> None:
        """The client takes more of the response, or takes no more for now."""

    def abandon(self) -> None:
        """Forget the request: the client is gone, or will never send the rest."""


class Peer(Protocol):
    """A client connection, whatever version of HTTP it speaks."""

    address: str
    tls: bool
    #: Whether it was accepted only to be told that the edge is full.
    rejected: bool
    #: Whether its X-Forwarded-For is not believed.
    distrusted: bool
    #: Fields that every response gets.
    more: bytes
    transport: Any
    #: When `expire` is to be called: `time.monotonic`.
    deadline: float

    @property
    def quiet_since(self) -> float | None:
        """Since when no request is under way; None while one is, and of a connection that is being closed."""

    def refuse(self, error: EdgeError) -> None:
        """Say why, and close."""

    def drain(self) -> None:
        """Close now when nothing is under way, else after the response."""

    def evict(self) -> None:
        """Close although more requests may come: another client needs the place."""

    def expire(self, now: float) -> None:
        """Act on `deadline`, which is over."""

    def abort(self) -> None:
        """Cut the connection."""


class Service(Protocol):
    """What serves the requests of clients."""

    timeouts: Timeouts

    def handle(self, client: Responder, head: RequestHead) -> Work | None:
        """Return what serves a request, not yet started; None when it was answered at once (`Client.respond`).

        Raises:
            EdgeError: it is not served.
        """

    def connected(self, client: Peer) -> None:
        """A client is connected, TLS included."""

    def disconnected(self, client: Peer) -> None:
        """A client is gone."""

    def http2(self, client: "Client") -> asyncio.Protocol:
        """Return what takes over from a client that has chosen HTTP/2."""

    def done(self, client: Responder, work: Work | None, status: int | str) -> None:
        """A request ended with this status, or with a word for what cut it short."""

    def keep_alive_limit(self) -> float | None:
        """Return the seconds of silence after which the client is closed to the millisecond, where a fault says so."""


class Handshake(Protocol):
    """A TLS handshake under way."""

    def fail(self, reason: str) -> None:
        """End it, for this reason."""

    def abort(self) -> None:
        """Cut the connection."""


class Client(asyncio.Protocol):
    """A client connection."""

    def __init__(self, service: Service, *, scheme: str, pooled: bool, rejected: bool = False) -> None:
        self.service, self.scheme, self.pooled = service, scheme, pooled
        #: The listener's name in metrics.
        self.listener = scheme if pooled else f"{scheme}-fresh"
        self.tls = scheme == "https"
        self.distrusted = False
        #: Fields that every response gets.
        self.more = b""
        #: Whether it was accepted only to be told that the edge is full.
        self.rejected = rejected
        self.state = State.NEW
        #: Whether the connection ends after the present response.
        self.close_after = False
        #: Whether the client takes data more slowly than it is offered.
        self.paused = False
        self.transport: Any = None
        self.address = ""
        #: Completes `RequestHead.forward`: the client's address, and what its connection is like.
        self.suffix = b""
        #: The TLS handshake under way.
        self.handshake: Handshake | None = None
        self.deadline = time.monotonic() + service.timeouts.handshake
        #: When the last request ended, or the connection began.
        self._since = time.monotonic()
        self._buffer = b""
        self._reading = True
        self._advancing = False
        self._body: Body | None = None
        #: Bytes of the body's rate window, and when it began.
        self._window_bytes, self._window = 0, 0.0
        self._heard = 0.0
        self._work: Work | None = None
        self._expects = self._chunked = False
        #: Whether the client speaks HTTP/1.1, and not 1.0.
        self._modern = True
        self._unsent = 0
        #: Ends the silence where `Service.keep_alive_limit` wants it exact.
        self._closer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Client {self.address or '?'} {self.scheme} {self.state.value} buffered={len(self._buffer)}>"

    @property
    def quiet_since(self) -> float | None:
        """Since when nothing of a request is under way; None while one is, and of a connection that is being closed.

        Bytes of a TLS handshake are no request: a client that sends them one at a time keeps no place from others.
        """
        return self._since if self.state in {State.NEW, State.IDLE} and not self.rejected else None

    # --- asyncio ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.handshake = transport, None
        self.address = (transport.get_extra_info("peername") or ("", 0))[0]
        self.suffix = describe(transport, self.address, self.scheme)
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.deadline = time.monotonic() + self.service.timeouts.head
        self.service.connected(self)
        if self.rejected:
            self.refuse(EdgeError(503, "as many clients are connected as this edge serves"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's shape
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
            self.state, self.deadline = State.HEAD, time.monotonic() + self.service.timeouts.head
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
        """Return what reads the connection, now that TLS has chosen a protocol (RFC 7301): this, or HTTP/2."""
        return self.service.http2(self) if protocol == "h2" else self

    # --- for the service and the exchange ---------------------------------------------------------------------------

    def begin_response(self, head: ResponseHead, fields: bytes, payload: bytes, *, bodiless: bool, whole: bool) -> None:
        """Send a head, with further *fields*, and *payload* of the body in one write; *whole*: that is all of it."""
        length = head.framing.length
        if self.state is State.BODY:
            self.close_after = True  # what is left of the request will not be read
        parts = [head.forward, fields, self.more]
        if length is not None:
            parts.append(b"content-length: %d\r\n" % length)
        elif not bodiless:
            if self._modern:
                self._chunked = not whole
                parts.append(b"transfer-encoding: chunked\r\n")
                payload = (b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b"") + (
                    b"0\r\n\r\n" if whole else b""
                )
            else:
                self.close_after = True
        if self.close_after:
            parts.append(b"connection: close\r\n")
        elif not self._modern:
            parts.append(b"connection: keep-alive\r\n")
        parts += (b"\r\n", payload)
        self._write(b"".join(parts), last=whole)

    def interim(self, head: ResponseHead) -> None:
        """Send an interim response; HTTP/1.0 has none."""
        if self._modern:
            self._write(head.forward + b"\r\n")

    def body(self, payload: bytes) -> None:
        """Send more of the body; does nothing when the client is gone."""
        self._write(b"%x\r\n%b\r\n" % (len(payload), payload) if self._chunked else payload)

    def _write(self, data: bytes, *, last: bool = False) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if last and self.close_after and self.tls:
            self.transport.write_last(data)
        else:
            self.transport.write(data)

    def unsent(self) -> int:
        """Return the bytes that wait for the client to take them."""
        return 0 if self.transport is None else int(self.transport.get_write_buffer_size())

    def pause_reading(self) -> None:
        """Read no more for now."""
        if self._reading and self.transport is not None:
            self._reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if not self._reading and self.transport is not None:
            self._reading = True
            self._heard = time.monotonic()
            self.transport.resume_reading()

    def finished(self, *, cut: bool) -> None:
        """The response is whole, or was *cut* off: then it must not look whole, and the connection is aborted."""
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
        """Answer the present request with an error."""
        work, self._work = self._work, None
        head_only = work is not None and work.head_only
        if self.state is State.BODY:
            self.close_after = True  # what is left of the body will not be read
        self.respond(error.status, error.body(), b"application/json", head_only=head_only)
        self.service.done(self, work, error.status)
        self._next()

    def respond(self, status: int, body: bytes, kind: bytes, *, more: bytes = b"", head_only: bool = False) -> None:
        """Send a response of the edge's own."""
        if status == 503:
            more += b"retry-after: 1\r\n"
        if self.close_after:
            more += b"connection: close\r\n"
        reason = REASONS.get(status, "OK").encode()
        more += self.more + b"date: %b\r\n" % formatdate(usegmt=True).encode()
        head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b\r\n" % (
            status, reason, kind, len(body), more,
        )  # fmt: skip
        self._write(head if head_only else head + body)

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """Send 101 and *data*, and pass every further byte on as it is."""
        self._write(b"%bconnection: upgrade\r\nupgrade: %b\r\n\r\n%b" % (head.forward, head.upgrade, data))
        self.state, self.close_after, self.deadline = State.TUNNEL, True, _NEVER
        rest, self._buffer = self._buffer, b""
        if rest and self._work is not None:
            self._work.tunnel_data(rest)
        self.resume_reading()

    # --- for the proxy ----------------------------------------------------------------------------------------------

    def never_connected(self) -> None:
        """The connection ended before its TLS handshake did."""
        self.state, self.handshake, self.deadline = State.CLOSING, None, _NEVER
        self.service.disconnected(self)

    def evict(self) -> None:
        """Close although more requests may come: another client needs the place."""
        self.state = State.CLOSING
        if self.transport is None:
            if self.handshake is not None:
                self.handshake.abort()
            return
        self.transport.close()
        asyncio.get_running_loop().call_later(self.service.timeouts.linger, self.abort)

    def abort(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abort()
        elif self.handshake is not None:
            self.handshake.abort()

    def drain(self) -> None:
        """Close now when nothing is under way, else after the response."""
        self.close_after = True
        if self.state in {State.NEW, State.IDLE} and self.transport is not None:
            self._close()

    def expire(self, now: float) -> None:
        """Act on `deadline`, which is over."""
        limits = self.service.timeouts
        if self.transport is None:
            if self.handshake is not None:
                self.handshake.fail("timeout")
            return
        if self.state is State.NEW:
            self._close()  # without a word: a browser that connects ahead would take it for the answer to its first request
        elif self.state is State.IDLE:
            if self._drains(now, limits.send):
                return
            self._close()
        elif self.state is State.HEAD:
            self.refuse(BadRequestError(408, f"no whole request head within {limits.head:g} s"))
        elif self.state is State.BODY:
            self._check_body(now)
        elif self.state is State.CLOSING and not self._drains(now, limits.send):
            self.abort()

    def _drains(self, now: float, patience: float) -> bool:
        """Whether the client has taken some of what waits for it since the last look; then look again later."""
        before, self._unsent = self._unsent, self.unsent()
        if self._unsent and (not before or self._unsent < before):
            self.deadline = now + patience
            return True
        return False

    def _check_body(self, now: float) -> None:
        limits = self.service.timeouts
        if not self._reading:  # the origin is the slow side
            self._window, self._window_bytes, self._heard = now, 0, now
        elif now - self._heard >= limits.body:
            self.refuse(BadRequestError(408, f"no whole request body: nothing came for {limits.body:g} s"))
            return
        elif now - self._window >= limits.rate_window:
            rate = self._window_bytes / (now - self._window)
            if rate < limits.min_rate:
                self.refuse(BadRequestError(408, f"expected a body at {limits.min_rate:g} bytes/s, got {rate:.0f}"))
                return
            self._window, self._window_bytes = now, 0
        self.deadline = min(self._heard + limits.body, self._window + limits.rate_window)

    # --- requests, one after the other ------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Read what the buffer has, as far as it may be read now."""
        if self._advancing:  # a response came at once, from within the loop below
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
        """Read a head and have its request served; False where more bytes are needed."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n") + 4
        if buffer[:1] == b"\r":
            while buffer.startswith(b"\r\n"):  # empty lines before a request (RFC 9112 section 2.2)
                buffer = buffer[2:]
            self._buffer = buffer
            end = buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            if (refusal := early_refusal(buffer)) is not None:
                raise refusal
            return False
        if end == len(buffer):
            data, self._buffer = buffer, b""
        else:
            data, self._buffer = buffer[:end], buffer[end:]
        head = read_head(data)
        self.close_after, self._modern = self.close_after or head.close, head.modern
        if head.has_body:
            now = time.monotonic()
            limits = self.service.timeouts
            self.state, self._body, self._expects = State.BODY, request_body(head.framing), head.expects
            self._heard = self._window = now
            self._window_bytes = 0
            self.deadline = now + min(limits.body, limits.rate_window)
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
        """Pass the buffered part of the body on."""
        body = self._body
        data, self._buffer = self._buffer, b""
        if body is None:
            return False
        self._heard = time.monotonic()
        self._window_bytes += len(data)
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
        """The response has been handed over: close, or go on with the next request."""
        if self.transport is None:
            return
        if self.state is State.BODY:
            self.close_after = True  # what is left of the body will not be read
        if self.close_after:
            if self.state is State.BODY:
                self._linger()
            else:
                self._close()
            return
        self.resume_reading()
        now = self._since = time.monotonic()
        if self._buffer:
            self.state, self.deadline = State.HEAD, now + self.service.timeouts.head
            self._advance()
            return
        self.state, self.deadline, self._unsent = State.IDLE, now + self.service.timeouts.idle, 0
        if (silence := self.service.keep_alive_limit()) is not None:
            self._closer = asyncio.get_running_loop().call_later(silence, self._close_when_silent)

    def refuse(self, error: EdgeError) -> None:
        """Answer with an error and close: where the next request begins is unknown."""
        work, self._work = self._work, None
        self.close_after = True
        if work is not None:
            work.abandon()
            if work.answered:  # a response is under way, and can only be cut
                self.service.done(self, work, "truncated")
                self.state = State.CLOSING
                self.abort()
                return
        if self.transport is None:
            return
        self.respond(error.status, error.body(), b"application/json")
        if not self.rejected:
            self.service.done(self, work, error.status)
        self._linger()

    def _linger(self) -> None:
        """Let a client that is still sending read the answer: to close at once would reset it (RFC 9112 section 9.6)."""
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
        """Close once everything has been sent; `expire` cuts a client that does not take it."""
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


def describe(transport: asyncio.BaseTransport, address: str, scheme: str) -> bytes:
    """Return what origins hear about a client: its address, and what its connection is like."""
    suffix = b"%b\r\nx-forwarded-proto: %b\r\n" % (address.encode(), scheme.encode())
    tls = transport.get_extra_info("ssl_object")
    if tls is not None:
        cipher = tls.cipher()
        suffix += _description(tls.version(), cipher[0] if cipher else "?", bool(tls.session_reused))
        if tls.context.verify_mode is not ssl.VerifyMode.CERT_NONE:
            suffix += b"x-forwarded-client-cert: %b\r\n" % _identity(tls)
    return suffix


@cache
def _description(version: str | None, cipher: str, resumed: bool) -> bytes:
    told = f"version={version}; cipher={cipher}; resumed={'yes' if resumed else 'no'}"
    return f"x-forwarded-tls: {told}\r\n".encode()


def _identity(tls: ssl.SSLObject) -> bytes:
    """Return the names in the client's certificate, as Envoy writes them: ``DNS=a.example.com;DNS=…``."""
    alternatives: Any = (tls.getpeercert() or {}).get("subjectAltName", ())
    return ";".join(f"DNS={name}" for kind, name in alternatives if kind == "DNS" and _NAME.fullmatch(name)).encode()
