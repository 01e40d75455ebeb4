"""Exchange: forwards one request to an origin and streams the response back to the client.

An exchange is event-driven and needs no task: if an idle connection is available, the request is sent to the origin in
the same call chain that received its last byte from the client. Request bodies are buffered up to a limit before a
connection is acquired, so that a slow sender does not occupy a connection.
"""

import asyncio
import time
from collections.abc import Container
from email.utils import formatdate

from edge.errors import BadRequestError, UpstreamError
from edge.heads import RequestHead, ResponseHead
from edge.interfaces import Downstream
from edge.pool import Outcome
from edge.route_pool import RoutePool
from edge.targets import Target
from edge.upstream import Timing, Upstream

#: Maximum size of request body data, in bytes, that is buffered before a connection is acquired and kept for a retry.
BODY_BUFFER = 64 * 1024
#: Protocols that a client may switch to (RFC 9110 section 7.8). Any other Upgrade is ignored, as the RFC permits.
TUNNELLED = frozenset({b"websocket"})
_NO_TIMING = Timing()


class Exchange:
    """State machine that forwards one request and its response."""

    #: Whether the response to the client has begun.
    answered = False
    #: Status code of the response; 0 before it begins.
    status = 0
    #: Additional header lines that the edge sends to the origin with this request.
    extra = b""
    #: Time of the first attempt to acquire a connection, on the `time.perf_counter` clock.
    asked_at = 0.0
    _upstream: Upstream | None = None
    #: Origin of the current or last attempt.
    _origin: Target | None = None
    _timing = _NO_TIMING
    _failure: UpstreamError | None = None
    #: Targets that failed on a reused connection, which may merely have been idle for too long.
    _stale: frozenset[Target] = frozenset()
    #: Targets that failed on a new connection or did not respond in time.
    _failed: frozenset[Target] = frozenset()
    _waited = _sent_at = 0.0
    _buffered = _tries = 0
    #: Whether `_body` holds the complete body received so far, so that a retry can send it again.
    _kept = True
    _body_sent = _delayed = _origin_paused = _reused = _ended = _tunnel = False
    #: Unsent response bytes at the last check, and response bytes that the client has read in the current rate window.
    _unsent = _taken = 0

    def __init__(self, client: Downstream, head: RequestHead, pool: RoutePool, delay: float = 0.0) -> None:
        """Create an exchange; *delay* is an injected delay before forwarding, in seconds."""
        self._client, self.head, self._pool, self._delay = client, head, pool, delay
        self._timeouts, self._max_body = pool.timeouts, pool.route.max_body
        self.head_only = head.method == b"HEAD"
        self.began = time.perf_counter()
        #: Whether the request body has been received completely.
        self.body_complete = not head.has_body
        self._body: list[bytes] = []
        #: Last time data was sent to or received from the origin; the response time-out starts here.
        self._progress = self.began
        #: Start of the client's rate window.
        self._drained_at = self.began

    def __repr__(self) -> str:
        where = "ended" if self._ended else "forwarded" if self._upstream else "waiting" if self._pool else "receiving"
        return (
            f"<Exchange {self.head.method.decode()} {self.head.path} {where} tries={self._tries} status={self.status}>"
        )

    # --- the request, from the client -------------------------------------------------------------------------------

    def start(self) -> None:
        """Acquire a connection, either now or once enough of the request body is buffered."""
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
        """Forward or buffer part of the request body; pause the client if it sends faster than the origin reads."""
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
        """Process the end of the request body."""
        self.body_complete = True
        self._progress = time.perf_counter()
        if self._upstream is not None:
            self._end_body(self._upstream)
        elif not self._delayed and not self.asked_at:
            self._acquire()

    def tunnel_data(self, data: bytes) -> None:
        """Forward bytes of the new protocol to the origin."""
        if self._upstream is not None:
            self._upstream.write(data)

    def abandon(self) -> None:
        """Cancel the request, because the client has disconnected or its request cannot be completed."""
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

    # --- origin connection ------------------------------------------------------------------------------------------

    def _acquire(self) -> None:
        pool = self._pool
        if not self._tries:
            pool.retries.request()
        self._tries += 1
        self.asked_at = self.asked_at or time.perf_counter()
        if self._client.pooled and not self._wants_tunnel:
            tried = self._stale | self._failed
            # After one attempt on each target, use new connections, because all idle connections may be dead.
            fresh = len(tried) >= len(pool.route.targets)
            pool.acquire(self, self._failed if fresh else tried, fresh=fresh)
        else:
            pool.acquire_unpooled(self, self._failed)

    @property
    def _wants_tunnel(self) -> bool:
        return bool(self.head.upgrade) and self.head.upgrade in TUNNELLED

    def connected(self, upstream: Upstream, timing: Timing, *, reused: bool) -> None:
        """Send the request on *upstream*."""
        client, head = self._client, self.head
        self._upstream, self._timing, self._reused = upstream, timing, reused
        self._origin = upstream.target
        now = self._sent_at = self._progress = time.perf_counter()
        self._waited = max(0.0, (now - self.asked_at) * 1000 - timing.dns - timing.connect - timing.tls)
        if not upstream.alive:
            self._upstream = None
            failure = UpstreamError(502, "the origin closed the connection", str(upstream.target), upstream.address)
            self._fail(upstream, failure, began=False)
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
        """Return the header lines that depend on the connection."""
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
        """Retry on another origin, or send an error response."""
        if target is None:
            self._failure = self._failure or error
            self._give_up()
            return
        self._failure = error
        self._failed |= {target}
        if len(self._failed) < len(self._pool.route.targets):
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
        """Forward an interim response, except 100 (Continue), which the edge sends itself."""
        self._progress = time.perf_counter()
        if head.status != 100:
            self._client.interim(head)

    @property
    def origin(self) -> str:
        """Name of the origin of the last attempt; empty before the first one."""
        return "" if self._origin is None else str(self._origin)

    def response_begins(self, head: ResponseHead, payload: bytes, *, bodiless: bool, whole: bool) -> None:
        """Send the head and the first part of the body to the client in one write."""
        now = self._progress = self._drained_at = time.perf_counter()
        self.answered, self.status = True, head.status
        self._body.clear()
        fields = self._server_timing(now)
        if head.dateless:
            fields += b"date: %b\r\n" % formatdate(usegmt=True).encode()
        self._client.begin_response(head, fields, payload, bodiless=bodiless, whole=whole)

    def _server_timing(self, now: float) -> bytes:
        """Return the Server-Timing field: the time spent on each step before the first byte, in milliseconds."""
        t, kind = self._timing, b"reused" if self._reused else b"fresh"
        name = b"" if self._origin is None else self._origin.name
        return (
            b'server-timing: pool;dur=%.3f;desc="%b", dns;dur=%.3f, connect;dur=%.3f, tls;dur=%.3f, '
            b'upstream;dur=%.3f;desc="%b"\r\n'
            % (self._waited, kind, t.dns, t.connect, t.tls, (now - self._sent_at) * 1000, name)
        )

    def response_body(self, payload: bytes) -> None:
        """Forward part of the response body."""
        self._progress = time.perf_counter()
        self._client.body(payload)

    def response_end(self, *, reusable: bool) -> None:
        """Release the connection and end the response."""
        upstream, self._upstream = self._upstream, None
        self._ended = True
        if upstream is not None:
            self._pool.release(upstream, Outcome.OK, reusable=reusable and self.body_complete)
        self._client.finished(cut=False)

    def response_lost(self, reason: str) -> None:
        """Retry on another origin if that is safe; otherwise send an error response."""
        upstream, self._upstream = self._upstream, None
        if upstream is None:
            return
        if self._tunnel:
            self._ended = True
            self._pool.release(upstream, Outcome.OK, reusable=False)
            self._client.finished(cut=False)
            return
        self._fail(upstream, UpstreamError(502, reason, str(self._origin), upstream.address), began=upstream.began)

    def _fail(self, upstream: Upstream, failure: UpstreamError, *, began: bool) -> None:
        """Retry on another origin if that is safe; *began* says whether part of the response has arrived."""
        pool, origin = self._pool, self._origin
        self._failure = failure
        outcome = Outcome.TIMED_OUT if failure.status == 504 else Outcome.FAILED
        pool.release(upstream, Outcome.OK if self.answered else outcome, reusable=False)
        if self._ended:
            return
        if self.answered:
            self._ended = True
            self._client.finished(cut=True)
            return
        if origin is not None:
            if self._reused and failure.status != 504:
                self._stale |= {origin}
            else:
                self._failed |= {origin}
        if self._may_repeat(began=began):
            self._acquire()
        else:
            self._give_up()

    def _may_repeat(self, *, began: bool) -> bool:
        """Return whether a retry is safe, another target or a new connection is left, and the budget permits it.

        Each target is tried at most twice: on a reused connection and on a new one.
        """
        if began or not self.head.idempotent or (self._body_sent and not self._kept):
            return False
        left = len(self._failed) < len(self._pool.route.targets)
        return left and self._pool.retries.spend(time.monotonic())

    def upstream_writable(self, *, writable: bool) -> None:
        """Resume or pause the request body, depending on whether the origin's send buffer has room."""
        self._origin_paused = not writable
        self._progress = time.perf_counter()
        if writable:
            self._client.resume_reading()
        else:
            self._client.pause_reading()

    def client_writable(self, *, writable: bool) -> None:
        """Resume or pause the response, depending on whether the client's send buffer has room."""
        if self._upstream is not None:
            if writable:
                self._progress = time.perf_counter()
                self._upstream.resume()
            else:
                self._upstream.pause()

    # --- tunnel -----------------------------------------------------------------------------------------------------

    def switched(self, head: ResponseHead, data: bytes) -> None:
        """Handle a 101 response: forward bytes in both directions until one side closes."""
        upstream = self._upstream
        if upstream is None:
            return
        if not self._wants_tunnel or head.upgrade != self.head.upgrade:
            upstream.abort()
            self.response_lost("the origin switched to a protocol that was not requested")
            return
        self.answered, self.status, self._tunnel = True, 101, True
        self._client.switch(head, data)

    def tunnelled(self, data: bytes) -> None:
        """Forward bytes of the new protocol to the client."""
        self._client.body(data)

    def revoked(self, serials: Container[int]) -> None:
        """Close the tunnel, if there is one, if *serials* contains the certificate of the client or of the origin."""
        upstream = self._upstream
        if self._tunnel and upstream and (self._client.certificate in serials or upstream.certificate in serials):
            upstream.abort()
            self.response_lost("a certificate is revoked")

    # --- time-outs --------------------------------------------------------------------------------------------------

    @property
    def waits_for(self) -> Target | None:
        """Origin whose response to the request is awaited; None in any other state."""
        return self._origin if self._upstream is not None and not self._upstream.began else None

    def origin_failed(self, reason: str) -> None:
        """Abort the current attempt and retry immediately; its origin is unhealthy or has not responded in time."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
            self._fail(upstream, UpstreamError(504, reason, str(self._origin), upstream.address), began=upstream.began)

    def tick(self, now: float) -> None:
        """Check the time-outs of the origin and the client, and handle one that has expired.

        The time-out of the origin is suspended while the edge waits for the client to send or read. *now* is on the
        `time.perf_counter` clock.
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
        """Return whether the client has stopped sending its body while it occupies an origin connection."""
        idle = now - self._progress >= self._timeouts.send_contended
        return idle and not self.body_complete and not self._origin_paused and not self.answered

    def _client_stalls(self, now: float, *, contended: bool) -> bool:
        """Return whether the client reads too slowly; the limit is stricter if other requests wait (*contended*)."""
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
