"""One request on its way through the edge: takes a connection, sends, streams back, gives the connection back.

Between a client connection (`edge.client`) and an origin connection (`edge.upstream`).
"""

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

from edge.errors import EdgeError, UpstreamError
from edge.headers import IDEMPOTENT, Fields, Framing, encode, end_to_end, forwarded
from edge.pool import Refuse, Wait
from edge.routes import Route, Target
from edge.upstream import HIGH_WATER, Timing, Upstream

if TYPE_CHECKING:
    from edge.client import Client
    from edge.proxy import Proxy

#: Seconds until an origin's response must begin, and the longest silence within it.
RESPONSE_TIMEOUT = 30.0
#: Seconds that a request waits for a pooled connection.
POOL_TIMEOUT = 5.0


class Exchange:
    """One request and its response."""

    def __init__(
        self, proxy: "Proxy", client: "Client", method: bytes, target: bytes, fields: Fields, framing: Framing
    ) -> None:
        self.proxy, self.client = proxy, client
        self.method, self.target, self.fields, self.framing = method, target, fields, framing
        self.began = time.perf_counter()
        #: Whether the request's body has arrived whole.
        self.body_complete = not framing.chunked and not framing.length
        #: Whether a byte of the response went to the client.
        self.answered = False
        self._body: deque[bytes] = deque()
        self._buffered = 0
        self._upstream: Upstream | None = None
        #: The origin that is asked, once one is.
        self._origin: Target | None = None
        self._body_sent = False
        self._timing = Timing()
        self._waited = 0.0
        self._reused = False
        self._sent_at = 0.0
        self._lost = ""
        self._done = asyncio.Event()
        self._reusable = False
        self._chunked = False
        #: When the origin last got or gave something: its silence is counted from here.
        self._progress = self.began
        self._origin_paused = False
        #: Why nobody needs the response any more: the client is gone, or its request will never be whole.
        self._end: ConnectionError | EdgeError | None = None
        self.status = 0

    # --- the request's body, from the client ------------------------------------------------------------------------

    def receive_body(self, data: bytes) -> None:
        """Take some of the body; pauses the client when the origin is slower."""
        if self._upstream is not None:
            self._send_body(data)
        else:
            self._body.append(data)
            self._buffered += len(data)
            if self._buffered > HIGH_WATER:
                self.client.pause_reading()

    def receive_end(self) -> None:
        """The body is whole."""
        self.body_complete = True
        self._progress = time.perf_counter()
        if self._upstream is not None and self.framing.chunked:
            self._upstream.write(b"0\r\n\r\n")

    def _send_body(self, data: bytes) -> None:
        if self._upstream is None:
            return
        self._body_sent = True
        self._progress = time.perf_counter()
        self._upstream.write(b"%x\r\n%b\r\n" % (len(data), data) if self.framing.chunked else data)

    # --- forwarding -------------------------------------------------------------------------------------------------

    async def run(self, route: Route) -> None:
        """Forward the request; every failure before the first byte becomes a response.

        Raises:
            EdgeError: nothing was sent to the client yet.
            ConnectionError: the client is gone, or the response was cut in the middle and its connection must go, too.
        """
        self._raise_if_abandoned()
        avoid: set[Target] = set()
        failure: UpstreamError | None = None
        # One try for each target, and one more where a reused connection turns out to be dead.
        for _ in range(len(route.targets) + 1):
            try:
                upstream = await self._connection(route, frozenset(avoid))
            except UpstreamError as error:
                failure = error
                avoid.add(next((t for t in route.targets if str(t) == error.upstream), route.targets[0]))
                if error.status == 503 or len(avoid) >= len(route.targets):
                    break
                continue
            if self._end is not None:  # while we waited; the connection is as good as before
                self.proxy.give_back(route, upstream, reusable=True)
            self._raise_if_abandoned()
            if await self._through(route, upstream):
                return
            self._raise_if_abandoned()
            if self.answered:
                raise ConnectionError(self._lost)
            failure = UpstreamError(502, self._lost, str(self._origin), upstream.address)
            if not (self._reused and not upstream.began and self._may_repeat()):
                break
        raise failure or UpstreamError(502, "no origin", route.prefix)

    def _may_repeat(self) -> bool:
        return self.method in IDEMPOTENT and not self._body_sent

    async def _connection(self, route: Route, avoid: frozenset[Target]) -> Upstream:
        """Take a connection from the pool, or open one."""
        began = time.perf_counter()
        pool = self.proxy.pools[route]
        if not self.client.pooled:
            self._origin, self._reused = pool.spread(avoid), False
            upstream, self._timing = await self.proxy.open(self._origin)
            return upstream
        while True:
            decision = pool.core.decide(time.monotonic(), avoid)
            if isinstance(decision, Wait):
                if time.perf_counter() - began > POOL_TIMEOUT:
                    raise UpstreamError(503, f"no connection was free within {POOL_TIMEOUT:g} s", route.prefix)
                await pool.wait(max(0.0, POOL_TIMEOUT - (time.perf_counter() - began)))
                continue
            self._waited = (time.perf_counter() - began) * 1000
            if isinstance(decision, Refuse):
                raise UpstreamError(503, decision.reason, route.prefix)
            upstream, self._timing, self._reused = await pool.perform(decision)
            self._origin = upstream.pooled.target if upstream.pooled is not None else None
            return upstream

    async def _through(self, route: Route, upstream: Upstream) -> bool:
        """Send the request over *upstream* and wait for the end of the response; False when it was lost."""
        self._upstream, self._lost = upstream, ""
        self._done.clear()
        self._origin_paused = False
        self._sent_at = self._progress = time.perf_counter()
        head = forwarded(self.fields, self.client.peer[0], self.client.scheme, self.client.tls)
        if self.framing.chunked:
            head.append((b"transfer-encoding", b"chunked"))
        if not self.client.pooled:
            head.append((b"connection", b"close"))
        start = self.method + b" " + self.target + b" HTTP/1.1"
        upstream.send_request(encode(start, head), self, head_only=self.method == b"HEAD")
        if self.client.paused_by_peer:
            upstream.pause()
        while self._body:
            self._send_body(self._body.popleft())
        self._buffered = 0
        self.client.resume_reading()
        if self.body_complete and self.framing.chunked:
            upstream.write(b"0\r\n\r\n")
        try:
            await self._until_done()
        except TimeoutError:
            upstream.abort()
            if self.answered:
                raise ConnectionError("the origin fell silent") from None
            raise UpstreamError(
                504, f"no response within {RESPONSE_TIMEOUT:g} s", str(self._origin), upstream.address
            ) from None
        finally:
            self._upstream = None
            self.proxy.give_back(route, upstream, reusable=self._reusable and self.body_complete and not self._lost)
        return not self._lost

    async def _until_done(self) -> None:
        """Wait for the end; raise `TimeoutError` when the origin neither takes nor gives anything for too long.

        While the client is the slow side, in either direction, the origin is not to blame.
        """
        while not self._done.is_set():
            left = RESPONSE_TIMEOUT - (time.perf_counter() - self._progress)
            blamed = not self.client.paused_by_peer and (self.body_complete or self._origin_paused)
            if left <= 0 and blamed:
                raise TimeoutError
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), left if left > 0 else RESPONSE_TIMEOUT)

    def abandon(self, fault: EdgeError | None = None) -> None:
        """Nobody needs the response: the client is gone or, with *fault*, its request will never be whole."""
        self._end = fault or ConnectionError("the client closed the connection")
        if self._upstream is not None:
            upstream = self._upstream
            self.response_lost(str(self._end))
            upstream.abort()

    def _raise_if_abandoned(self) -> None:
        if self._end is not None:
            raise ConnectionError(str(self._end)) if self.answered else self._end

    # --- Receiver: the response, from the origin --------------------------------------------------------------------

    def response_head(self, status: int, reason: bytes, fields: Fields) -> None:
        now = time.perf_counter()
        self._progress = now
        names = {name for name, _ in fields}
        kept = [(name, value) for name, value in end_to_end(fields) if name != b"server-timing"]
        bodiless = self.method == b"HEAD" or status in {204, 304}
        self._chunked = not bodiless and b"content-length" not in names and self.client.version == "1.1"
        if self._chunked:
            kept.append((b"transfer-encoding", b"chunked"))
        elif not bodiless and b"content-length" not in names:
            self.client.close_after = True
        if self.client.close_after or self.proxy.draining:
            self.client.close_after = True
            kept.append((b"connection", b"close"))
        elif self.client.version == "1.0":
            kept.append((b"connection", b"keep-alive"))
        kept.append((b"via", b"1.1 firstbyte-edge"))
        kept.append((b"server-timing", self._server_timing(now)))
        self.answered, self.status = True, status
        self.client.write(encode(b"HTTP/1.1 %d %b" % (status, reason), kept))

    def _server_timing(self, now: float) -> bytes:
        """Where the time went before the first byte (W3C Server Timing), in milliseconds."""
        t, kind = self._timing, "reused" if self._reused else "fresh"
        upstream = (now - self._sent_at) * 1000
        text = (
            f'pool;dur={self._waited:.3f};desc="{kind}", dns;dur={t.dns:.3f}, connect;dur={t.connect:.3f}, '
            f'tls;dur={t.tls:.3f}, upstream;dur={upstream:.3f};desc="{self._origin}"'
        )
        return text.encode()

    def response_body(self, data: bytes) -> None:
        self._progress = time.perf_counter()
        self.client.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def response_end(self, reusable: bool) -> None:
        if self._chunked:
            self.client.write(b"0\r\n\r\n")
        self._reusable = reusable
        self._done.set()

    def response_lost(self, reason: str) -> None:
        self._lost = reason
        self._reusable = False
        self._done.set()

    def upstream_writable(self, writable: bool) -> None:
        self._origin_paused = not writable
        self._progress = time.perf_counter()
        if writable:
            self.client.resume_reading()
        else:
            self.client.pause_reading()

    def client_writable(self, writable: bool) -> None:
        """The client takes more of the response, or does not for now."""
        if self._upstream is not None:
            if writable:
                self._progress = time.perf_counter()
                self._upstream.resume()
            else:
                self._upstream.pause()
