"""One client connection: reads requests, one after the other, and hands each to an `Exchange` (RFC 9112).

Pipelined requests wait their turn; a client that sends more than we take is not read from.
"""

import asyncio
import ssl
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from edge.errors import REASONS, BadRequestError, EdgeError
from edge.exchange import Exchange
from edge.headers import MAX_FIELDS, MAX_HEADER, MAX_TARGET, Fields, check_request, encode, wants_close
from edge.upstream import HIGH_WATER

if TYPE_CHECKING:
    from edge.proxy import Proxy

#: Seconds for a request's head (slow loris), for a silent keep-alive connection, and between pieces of a body.
HEAD_TIMEOUT, IDLE_TIMEOUT, BODY_TIMEOUT = 10.0, 75.0, 30.0
#: Seconds in which a client that is still sending may read why it was refused before its connection is reset.
LINGER = 2.0
#: Requests of one connection that may be waiting behind the one that is being served.
MAX_PIPELINED = 8
CHALLENGE = b"/.well-known/acme-challenge/"


class Client(asyncio.Protocol):
    """A client connection."""

    def __init__(self, proxy: "Proxy", *, scheme: str, pooled: bool, turned_away: bool = False) -> None:
        self.proxy, self.scheme, self.pooled = proxy, scheme, pooled
        #: Whether it is only here to be told that there is no room.
        self.turned_away = turned_away
        self.peer: tuple[str, int] = ("", 0)
        #: What the TLS connection is like, for X-Forwarded-TLS; empty without.
        self.tls = b""
        self.version = "1.1"
        #: Whether the connection ends after the response that is being sent.
        self.close_after = False
        #: Whether the client takes data more slowly than we have it.
        self.paused_by_peer = False
        self.transport: Any = None
        #: Leads the connection through its TLS handshake.
        self.entering: asyncio.Task[None] | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._target = b""
        self._fields: Fields = []
        self._size = 0
        self._method = b""
        self._receiving: Exchange | None = None
        self._queue: deque[tuple[Exchange, str, bool] | EdgeError] = deque()
        self._serving: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._broken = False
        self._reading = True
        self.deadline = time.monotonic() + HEAD_TIMEOUT
        #: silent (nothing came yet), head, body, or idle.
        self._state = "silent"
        #: Ends the silence where the fault short_keep_alive wants it exact; `deadline` is looked at once a second.
        self._closer: asyncio.TimerHandle | None = None

    @property
    def quiet_since(self) -> float | None:
        """When the last request ended, or the connection began that has sent none yet; None while one is under way.

        Octets of a TLS handshake are no request: whoever sends them one at a time keeps no place from others.  None also of
        a connection that is being turned away: it has no place to give.
        """
        if self._broken or self.turned_away:
            return None
        if self._state == "silent":
            return self.deadline - HEAD_TIMEOUT
        return self.deadline - IDLE_TIMEOUT if self.idle else None

    @property
    def idle(self) -> bool:
        """Whether nothing of a request is under way."""
        return self._serving is None and not self._queue and self._state == "idle"

    # --- asyncio ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.peer = (transport.get_extra_info("peername") or ("", 0))[:2]
        self.tls = _describe(transport.get_extra_info("ssl_object"))
        self.transport.set_write_buffer_limits(HIGH_WATER)
        self.proxy.connected(self)
        if self.turned_away:
            self._refuse(EdgeError(503, "as many clients are connected as this edge serves"))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's shape
        self.transport = None
        self._queue.clear()
        self._keep_open()
        if self._serving is not None:
            self._serving.abandon()
        self.proxy.disconnected(self)

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        if self._state == "idle":
            self._state, self.deadline = "head", time.monotonic() + HEAD_TIMEOUT
            self._keep_open()
        elif self._state == "silent":
            self._state = "head"
        elif self._state == "body":
            self.deadline = time.monotonic() + BODY_TIMEOUT
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(BadRequestError(501, "no other protocol is offered"))
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(
                cause if isinstance(cause, EdgeError) else BadRequestError(400, f"expected an HTTP request: {error}")
            )

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.paused_by_peer = True
        if self._serving is not None:
            self._serving.client_writable(writable=False)

    def resume_writing(self) -> None:
        self.paused_by_peer = False
        if self._serving is not None:
            self._serving.client_writable(writable=True)

    # --- for exchanges and the proxy --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send to the client; silently nothing when it is gone."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def pause_reading(self) -> None:
        """Read no more for now."""
        if self._reading and self.transport is not None:
            self._reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, unless too many requests wait."""
        if not self._reading and self.transport is not None and len(self._queue) < MAX_PIPELINED:
            self._reading = True
            self.transport.resume_reading()

    def never_connected(self) -> None:
        """The TLS handshake failed."""
        self._broken = True
        self.proxy.disconnected(self)

    def make_room(self) -> None:
        """Close although more requests may come: another client needs the place."""
        self._broken = True
        if self.transport is None:
            if self.entering is not None:
                self.entering.cancel()
            return
        self.transport.close()
        asyncio.get_running_loop().call_later(LINGER, self.abort)

    def abort(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abort()

    def drain(self) -> None:
        """Close now when idle, else after the response."""
        self.close_after = True
        if self.idle and self.transport is not None:
            self.transport.close()

    def check_deadline(self, now: float) -> None:
        """Act on silence; called about once a second."""
        if now < self.deadline or self.transport is None:
            return
        if self._state == "idle":
            self.transport.close()
        elif not self._broken and self._reading and (self._serving is None or self._state == "body"):
            part = "body" if self._state == "body" else "head"
            self._refuse(BadRequestError(408, f"no whole request {part} in time"))

    # --- httptools --------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target, self._fields, self._size = b"", [], 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        if len(self._target) > MAX_TARGET:
            raise BadRequestError(414, f"expected a target of at most {MAX_TARGET} octets")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value) + 4
        if self._size > MAX_HEADER or len(self._fields) >= MAX_FIELDS:
            raise BadRequestError(431, f"expected at most {MAX_FIELDS} fields and {MAX_HEADER} octets")
        # Trailers come here, too: a field after the body could say what the head may not (RFC 9110 section 6.5.1).
        if self._receiving is None:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser, version = self._parser, self._parser.get_http_version()
        method = parser.get_method()
        target, authority = _origin_form(self._target)
        framing = check_request(method, target, self._fields, version)
        if authority is not None:
            self._fields = [(name, authority if name == b"host" else value) for name, value in self._fields]
        exchange = Exchange(self.proxy, self, method, target, self._fields, framing)
        close = wants_close(self._fields, version) or not parser.should_keep_alive()
        if not exchange.body_complete:
            self._state, self.deadline = "body", time.monotonic() + BODY_TIMEOUT
            if any(name == b"expect" and value.lower() == b"100-continue" for name, value in self._fields):
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._receiving = exchange
        self._enqueue((exchange, version, close))

    def on_body(self, data: bytes) -> None:
        if self._receiving is not None:
            self._receiving.receive_body(data)

    def on_message_complete(self) -> None:
        if self._receiving is not None:
            self._receiving.receive_end()
        self._receiving, self._state = None, "idle"
        self.deadline = time.monotonic() + IDLE_TIMEOUT

    # --- serving, one after the other -------------------------------------------------------------------------------

    def _enqueue(self, item: tuple[Exchange, str, bool] | EdgeError) -> None:
        self._queue.append(item)
        if len(self._queue) >= MAX_PIPELINED:
            self.pause_reading()
        if self._task is None:
            self._task = asyncio.ensure_future(self._serve())

    def _refuse(self, error: EdgeError) -> None:
        """Answer with an error after whatever is being answered, and close: where the next request begins is unknown."""
        self._broken = True
        if self._receiving is not None:
            self._receiving.abandon(error)  # it is the one that will never be whole: the error is its answer
        else:
            self._enqueue(error)

    async def _serve(self) -> None:
        try:
            while self._queue and self.transport is not None:
                item = self._queue.popleft()
                self.resume_reading()
                if isinstance(item, EdgeError):
                    self.close_after = True
                    self._error(item)
                else:
                    exchange, self.version, close = item
                    self.close_after = self.close_after or close
                    await self._one(exchange)
                if self.close_after:
                    break
        finally:
            self._task = None
        if self.close_after and self.transport is not None:
            self._queue.clear()
            if self._broken or self._receiving is not None:
                self._linger()
            else:
                self._broken = True
                self.transport.close()
        elif self._state == "idle" and self.transport is not None:
            self.deadline = time.monotonic() + IDLE_TIMEOUT
            self._keep_open()
            if (silence := self.proxy.short_keep_alive()) is not None:
                self._closer = asyncio.get_running_loop().call_later(silence, self._close_when_silent)

    def _keep_open(self) -> None:
        """Forget what would have ended the silence."""
        if self._closer is not None:
            self._closer.cancel()
            self._closer = None

    def _close_when_silent(self) -> None:
        self._closer = None
        if self.idle and self.transport is not None:
            self.transport.close()

    def _linger(self) -> None:
        """Let a client that is still sending read our answer: to close at once would reset it away (RFC 9112 section 9.6)."""
        self._broken, self._receiving = True, None
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.resume_reading()
        asyncio.get_running_loop().call_later(LINGER, self.abort)

    async def _one(self, exchange: Exchange) -> None:
        self._serving = exchange
        try:
            if self.scheme == "http" and exchange.target.startswith(CHALLENGE):
                self._challenge(exchange)
            else:
                await self.proxy.forward(exchange)
        except EdgeError as error:
            if not exchange.body_complete:
                self.close_after = True
            self._error(error, head_only=exchange.method == b"HEAD")
            exchange.status = error.status
        except ConnectionError:
            self.close_after = True  # a response cut short must not look whole
            self.abort()
        finally:
            self._serving = None
            if not exchange.body_complete:
                self.close_after = True  # what is left of the body will not be read
            self.proxy.done(self, exchange)

    def _challenge(self, exchange: Exchange) -> None:
        """Answer http-01 (RFC 8555 section 8.3)."""
        token = exchange.target[len(CHALLENGE) :].decode("ascii", "replace")
        answer = self.proxy.challenge(token)
        exchange.status = 404 if answer is None else 200
        body = b"" if answer is None else answer.encode()
        status = b"404 Not Found" if answer is None else b"200 OK"
        self._respond(status, body, b"text/plain")

    def _error(self, error: EdgeError, *, head_only: bool = False) -> None:
        status = b"%d %b" % (error.status, REASONS[error.status].encode())
        self._respond(status, error.body(), b"application/json", error.status, head_only=head_only)

    def _respond(self, status: bytes, body: bytes, kind: bytes, code: int = 200, *, head_only: bool = False) -> None:
        fields = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        if code == 503:
            fields.append((b"retry-after", b"1"))
        if self.close_after:
            fields.append((b"connection", b"close"))
        self.write(encode(b"HTTP/1.1 " + status, fields) + (b"" if head_only else body))


def _origin_form(target: bytes) -> tuple[bytes, bytes | None]:
    """Return the path of an absolute-form target and its authority, which stands above Host (RFC 9112 section 3.2.2)."""
    for scheme in (b"http://", b"https://"):
        if target[: len(scheme)].lower() == scheme:
            authority, slash, path = target[len(scheme) :].partition(b"/")
            return slash + path or b"/", authority
    return target, None


def _describe(tls: ssl.SSLObject | None) -> bytes:
    if tls is None:
        return b""
    cipher = tls.cipher()
    resumed = "yes" if tls.session_reused else "no"
    return f"version={tls.version()}; cipher={cipher[0] if cipher else '?'}; resumed={resumed}".encode()
