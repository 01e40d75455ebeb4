"""One request on its way through the edge: takes a connection, sends, streams back, gives the connection back.

Driven by events alone, without a task: the client's last byte leads to the origin's first by one chain of calls where an
idle connection is at hand.  The body of a request is buffered before a connection is taken, up to a limit, so that a
slow sender holds none.
"""

import asyncio
import time
from email.utils import formatdate
from typing import Protocol

from edge.errors import BadRequestError, EdgeError, UpstreamError
from edge.heads import RequestHead, ResponseHead
from edge.pool import Outcome
from edge.route_pool import RoutePool
from edge.targets import Target
from edge.upstream import Timing, Upstream

#: Bytes of a request's body that are buffered before a connection is taken, and that can be sent again.
BODY_BUFFER = 64 * 1024
#: Protocols that a client may switch to (RFC 9110 section 7.8); any other Upgrade is ignored, as it may be.
TUNNELLED = frozenset({b"websocket"})
_NO_TIMING = Timing()


class Downstream(Protocol):
    """The client's side of an exchange, whatever version of HTTP it speaks."""

    #: Whether the client takes data more slowly than it is offered.
    paused: bool
    #: The client's address and what else an origin hears about it; completes `RequestHead.forward`.
    suffix: bytes
    #: Whether origins are reached over pooled connections.
    pooled: bool
    #: Whether the client's own X-Forwarded-For is not believed.
    distrusted: bool

    def begin_response(self, head: ResponseHead, fields: bytes, payload: bytes, *, bodiless: bool, whole: bool) -> None:
        """Send a head, with further *fields*, and *payload* of the body; *whole*: that is all of it."""

    def interim(self, head: ResponseHead) -> None:
        """Send an interim response (1xx)."""

    def body(self, payload: bytes) -> None:
        """Send more of the body; does nothing when the client is gone."""

    def pause_reading(self) -> None:
        """Read no more of the request's body for now."""

    def resume_reading(self) -> None:
        """Read on."""

    def unsent(self) -> int:
        """Return the bytes that wait for the client to take them."""

    def finished(self, *, cut: bool) -> None:
        """The response is whole, or was *cut* off and must not look whole."""

    def failed(self, error: EdgeError) -> None:
        """There is no response; nothing was sent yet."""

    def switch(self, head: ResponseHead, data: bytes) -> None:
        """Send 101 and *data*; from here on every byte of the client belongs to another protocol."""


class Responder(Downstream, Protocol):
    """A client's side of a request, as the service sees it."""

    #: ``http`` or ``https``.
    scheme: str
    #: The listener's name in metrics.
    listener: str
    #: The client's IP address.
    address: str

    def respond(self, status: int, body: bytes, kind: bytes, *, more: bytes = b"", head_only: bool = False) -> None:
        """Send a response of the edge's own."""


class Exchange:
    """One request and its response."""

    #: Whether a byte of the response went to the client.
    answered = False
    #: The status of the response; 0 before there is one.
    status = 0
    #: Fields of the edge's own for this request.
    extra = b""
    #: When a connection was first asked for.
    asked_at = 0.0
    _upstream: Upstream | None = None
    #: The origin that is asked, once one is.
    _origin: Target | None = None
    _timing = _NO_TIMING
    _failure: UpstreamError | None = None
    _avoid: frozenset[Target] = frozenset()
    _waited = _sent_at = 0.0
    _buffered = _tries = 0
    #: Whether `_body` holds all of the body that has arrived, so that it can be sent again.
    _kept = True
    _body_sent = _delayed = _origin_paused = _reused = _ended = _tunnel = False
    #: Bytes that waited for the client at the last look, and how many it has taken since the rate window began.
    _unsent = _taken = 0

    def __init__(self, client: Downstream, head: RequestHead, pool: RoutePool, delay: float = 0.0) -> None:
        """Make one; *delay* holds it back for so many seconds (a fault)."""
        self._client, self.head, self._pool, self._delay = client, head, pool, delay
        self._timeouts, self._max_body = pool.timeouts, pool.route.max_body
        self.head_only = head.method == b"HEAD"
        self.began = time.perf_counter()
        #: Whether the request's body has arrived whole.
        self.body_complete = not head.has_body
        self._body: list[bytes] = []
        #: When the origin last got or gave something: its silence is counted from here.
        self._progress = self.began
        #: When the client's rate window began.
        self._drained_at = self.began

    def __repr__(self) -> str:
        where = "ended" if self._ended else "forwarded" if self._upstream else "waiting" if self._pool else "receiving"
        return (
            f"<Exchange {self.head.method.decode()} {self.head.path} {where} tries={self._tries} status={self.status}>"
        )

    # --- the request, from the client -------------------------------------------------------------------------------

    def start(self) -> None:
        """Forward the request to an origin, at once or when enough of the body has arrived."""
        if self._delay:
            delay, self._delay = self._delay, 0.0
            asyncio.get_running_loop().call_later(delay, self.start)
            self._delayed = True
            return
        self._delayed = False
        if self._ended:
            return
        if self.body_complete or self._buffered >= BODY_BUFFER:
            self._acquire()

    def receive_body(self, payload: bytes) -> None:
        """Take some of the body; pauses the client while the origin is slower."""
        if self._ended:
            return
        if self._max_body is not None and self._buffered + len(payload) > self._max_body:
            raise BadRequestError(413, f"expected a body of at most {self._max_body} bytes")
        if self._kept and self._buffered + len(payload) <= BODY_BUFFER:
            self._body.append(payload)
        elif self._upstream is None:
            self._body.append(payload)
            self._client.pause_reading()
        else:
            self._kept = False
            self._body.clear()
        self._buffered += len(payload)
        if self._upstream is not None:
            self._send_body(payload)
        elif self._buffered >= BODY_BUFFER and not self._delayed and not self.asked_at:
            self._acquire()

    def receive_end(self) -> None:
        """The body is whole."""
        self.body_complete = True
        self._progress = time.perf_counter()
        if self._upstream is not None:
            self._end_body(self._upstream)
        elif not self._delayed and not self.asked_at:
            self._acquire()

    def tunnel_data(self, data: bytes) -> None:
        """Pass bytes of the other protocol on to the origin."""
        if self._upstream is not None:
            self._upstream.write(data)

    def abandon(self) -> None:
        """Forget the request: the client is gone, or will never send the rest."""
        if self._ended:
            return
        self._ended = True
        self._body.clear()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
            self._pool.release(upstream, Outcome.OK if self.answered else Outcome.UNKNOWN, reusable=False)
        else:
            self._pool.abandon(self)

    # --- a connection -----------------------------------------------------------------------------------------------

    def _acquire(self) -> None:
        pool = self._pool
        if not self._tries:
            pool.retries.request()
        self._tries += 1
        self.asked_at = self.asked_at or time.perf_counter()
        if self._client.pooled and not self._wants_tunnel:
            # The last try goes over a connection that nobody has used: every idle one may be dead.
            fresh = self._failure is not None and self._tries > len(pool.route.targets)
            pool.acquire(self, self._avoid, fresh=fresh)
        else:
            pool.acquire_unpooled(self, self._avoid)

    @property
    def _wants_tunnel(self) -> bool:
        return bool(self.head.upgrade) and self.head.upgrade in TUNNELLED

    def connected(self, upstream: Upstream, timing: Timing, *, reused: bool) -> None:
        """Send the request over *upstream*."""
        client, head = self._client, self.head
        self._upstream, self._timing, self._reused = upstream, timing, reused
        self._origin = upstream.target
        now = self._sent_at = self._progress = time.perf_counter()
        self._waited = max(0.0, (now - self.asked_at) * 1000 - timing.dns - timing.connect - timing.tls)
        if not upstream.alive:
            self.response_lost("the origin closed the connection")
            return
        forward = head.forward
        if client.distrusted and head.claimed:
            forward = forward[: -len(head.claimed)]
        upstream.send_request(b"%b%b%b\r\n" % (forward, client.suffix, self._more_fields()), self)
        if client.paused:
            upstream.pause()
        if head.has_body:
            body, kept = self._body, self._buffered <= BODY_BUFFER
            if not kept:
                self._kept, self._body = False, []
            for payload in body:
                self._send_body(payload)
            client.resume_reading()
            if self.body_complete:
                self._end_body(upstream)

    def _more_fields(self) -> bytes:
        """Return the fields that depend on this connection."""
        head, more = self.head, self.extra
        if not head.host and self._origin is not None:
            more += b"host: %b\r\n" % self._origin.authority
        if head.framing.chunked:
            more += b"transfer-encoding: chunked\r\n"
        if self._wants_tunnel:
            more += b"connection: upgrade\r\nupgrade: %b\r\n" % head.upgrade
        elif not self._client.pooled:
            more += b"connection: close\r\n"
        return more

    def not_connected(self, target: Target | None, error: UpstreamError) -> None:
        """Try another origin, or give up."""
        self._failure = error
        if target is None:
            self._give_up()
            return
        self._avoid |= {target}
        targets = len(self._pool.route.targets)
        if self._tries <= targets and len(self._avoid) < targets:
            self._acquire()
        else:
            self._give_up()

    def _give_up(self) -> None:
        self._ended = True
        failure = self._failure or UpstreamError(502, "no origin", "")
        self.status = failure.status
        self._client.failed(failure)

    def _send_body(self, payload: bytes) -> None:
        if self._upstream is None:
            return
        self._body_sent = True
        self._progress = time.perf_counter()
        chunk = b"%x\r\n%b\r\n" % (len(payload), payload) if self.head.framing.chunked else payload
        self._upstream.write(chunk)

    def _end_body(self, upstream: Upstream) -> None:
        if self.head.framing.chunked:
            upstream.write(b"0\r\n\r\n")

    # --- Receiver: the response, from the origin --------------------------------------------------------------------

    def response_interim(self, head: ResponseHead) -> None:
        """Pass an interim response on; 100 is the edge's own to send."""
        self._progress = time.perf_counter()
        if head.status != 100:
            self._client.interim(head)

    @property
    def origin(self) -> str:
        """The origin that was asked last; nothing before one is."""
        return "" if self._origin is None else str(self._origin)

    def response_begins(self, head: ResponseHead, payload: bytes, *, bodiless: bool, whole: bool) -> None:
        """Send the head on, and in the same write what came of the body."""
        now = self._progress = self._drained_at = time.perf_counter()
        self.answered, self.status = True, head.status
        self._body.clear()
        fields = self._server_timing(now)
        if head.dateless:
            fields += b"date: %b\r\n" % formatdate(usegmt=True).encode()
        self._client.begin_response(head, fields, payload, bodiless=bodiless, whole=whole)

    def _server_timing(self, now: float) -> bytes:
        """Where the time went before the first byte (W3C Server Timing), in milliseconds."""
        t, kind = self._timing, b"reused" if self._reused else b"fresh"
        name = b"" if self._origin is None else self._origin.name
        return (
            b'server-timing: pool;dur=%.3f;desc="%b", dns;dur=%.3f, connect;dur=%.3f, tls;dur=%.3f, '
            b'upstream;dur=%.3f;desc="%b"\r\n'
            % (self._waited, kind, t.dns, t.connect, t.tls, (now - self._sent_at) * 1000, name)
        )

    def response_body(self, payload: bytes) -> None:
        """Send more of the body on."""
        self._progress = time.perf_counter()
        self._client.body(payload)

    def response_end(self, *, reusable: bool) -> None:
        """Give the connection back; the response is whole."""
        upstream, self._upstream = self._upstream, None
        self._ended = True
        if upstream is not None:
            self._pool.release(upstream, Outcome.OK, reusable=reusable and self.body_complete)
        self._client.finished(cut=False)

    def response_lost(self, reason: str) -> None:
        """The origin is gone: ask another one where that is safe, else tell the client."""
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        if self._tunnel:
            self._ended = True
            self._pool.release(upstream, Outcome.OK, reusable=False)
            self._client.finished(cut=False)
            return
        self._fail(upstream, UpstreamError(502, reason, str(self._origin), upstream.address))

    def _fail(self, upstream: Upstream, failure: UpstreamError) -> None:
        pool, began, origin = self._pool, upstream.began, self._origin
        self._failure = failure
        pool.release(upstream, Outcome.OK if self.answered else Outcome.FAILED, reusable=False)
        if self._ended:
            return
        if self.answered:
            self._ended = True
            self._client.finished(cut=True)
            return
        # A reused connection may simply have been too old; a fresh one that failed, and silence, tell about the origin.
        stale = self._reused and failure.status != 504
        if origin is not None and not stale:
            self._avoid |= {origin}
        if self._may_repeat(began=began, stale=stale):
            self._acquire()
        else:
            self._give_up()

    def _may_repeat(self, *, began: bool, stale: bool) -> bool:
        """Whether the request may be sent again, and there is anything to send it over that has not failed it yet."""
        targets = len(self._pool.route.targets)
        if began or not self.head.idempotent or (self._body_sent and not self._kept) or self._tries > targets:
            return False
        return (stale or len(self._avoid) < targets) and self._pool.retries.spend(time.monotonic())

    def upstream_writable(self, *, writable: bool) -> None:
        """The origin takes more of the body, or takes no more for now."""
        self._origin_paused = not writable
        self._progress = time.perf_counter()
        if writable:
            self._client.resume_reading()
        else:
            self._client.pause_reading()

    def client_writable(self, *, writable: bool) -> None:
        """The client takes more of the response, or takes no more for now."""
        if self._upstream is not None:
            if writable:
                self._progress = time.perf_counter()
                self._upstream.resume()
            else:
                self._upstream.pause()

    # --- another protocol -------------------------------------------------------------------------------------------

    def switched(self, head: ResponseHead, data: bytes) -> None:
        """The origin switched protocols: pass bytes both ways until one side ends."""
        upstream = self._upstream
        if upstream is None:
            return
        if not self._wants_tunnel or head.upgrade != self.head.upgrade:
            upstream.abort()
            self.response_lost("the origin switched to a protocol that nobody asked for")
            return
        self.answered, self.status, self._tunnel = True, 101, True
        self._client.switch(head, data)

    def tunnelled(self, data: bytes) -> None:
        """Pass bytes of the other protocol on to the client."""
        self._client.body(data)

    # --- time -------------------------------------------------------------------------------------------------------

    @property
    def waits_for(self) -> Target | None:
        """The origin of which nothing has come yet, though it has been asked."""
        return self._origin if self._upstream is not None and not self._upstream.began else None

    def origin_failed(self, reason: str) -> None:
        """The origin fails its health checks: ask another one at once, rather than wait for the time-out."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
            self._fail(upstream, UpstreamError(504, reason, str(self._origin), upstream.address))

    def tick(self, now: float) -> None:
        """Look for an origin or a client that has been still for too long; *now* is `time.perf_counter`.

        While the client is the slow side, in either direction, the origin is not to blame.
        """
        upstream, pool = self._upstream, self._pool
        if upstream is None or self._tunnel:
            return
        contended = pool.core.waiting > 0
        if contended and self._body_stalls(now):
            self._ended, self._upstream = True, None
            upstream.abort()
            pool.release(upstream, Outcome.UNKNOWN, reusable=False)
            self._client.failed(BadRequestError(408, "the body stopped while other requests wait for a connection"))
            return
        if self._client_stalls(now, contended=contended):
            self._ended, self._upstream = True, None
            upstream.abort()
            pool.release(upstream, Outcome.OK, reusable=False)
            self._client.finished(cut=True)
            return
        blamed = not self._client.paused and (self.body_complete or self._origin_paused)
        if not blamed or now - self._progress < self._timeouts.response:
            return
        self.origin_failed(f"no response within {self._timeouts.response:g} s")

    def _body_stalls(self, now: float) -> bool:
        """Whether the client stopped in the middle of its body, and holds up a connection."""
        idle = now - self._progress >= self._timeouts.send_contended
        return idle and not self.body_complete and not self._origin_paused and not self.answered

    def _client_stalls(self, now: float, *, contended: bool) -> bool:
        """Whether the client takes the response too slowly for what it holds up."""
        limits, unsent = self._timeouts, self._client.unsent()
        if not self._client.paused:
            self._unsent, self._taken, self._drained_at = unsent, 0, now
            return False
        self._taken += max(0, self._unsent - unsent)
        self._unsent = unsent
        still = now - self._drained_at
        if not self._taken:
            return still >= (limits.send_contended if contended else limits.send)
        if still >= limits.rate_window:
            slow = self._taken < limits.min_rate * still
            self._taken, self._drained_at = 0, now
            return slow
        return False
