"""An open-loop load: each request starts at its scheduled time, even if earlier requests are not complete.

Every certificate chain is verified.  Latency is measured from the intended start, so that a stalled server is visible
in the latency of all requests that are due during the stall (no coordinated omission).  Send lag and CPU use of the
generator are recorded for a validity gate.
"""

import asyncio
import math
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from generator.channel import Channel
from generator.connection import Connection
from generator.histogram import Histogram
from generator.pace import Pacer, Starvation
from generator.request import KINDS, Closes, Kind, LoadError, Request, Target
from generator.schedule import Schedule, constant
from linuxnet.source_ports import Source
from stub import AsyncStub, StubError

#: Time after which a request counts as lost, in seconds.
TIMEOUT = 5.0
#: Interval between searches for timed-out requests, in seconds; this is the precision of time-outs.
SWEEP = 0.02
#: Maximum number of idle connections that are kept if the pool has no limit; more than any load needs (rate × latency).
MAX_IDLE = 64
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(slots=True, eq=False)
class _Exchange:
    """A request in flight; `connection` is None until a connection is assigned."""

    request: Request
    #: The encoded request.
    text: bytes
    #: Start of the phase `wait` or `dns`, in seconds; later phases are measured by the connection.
    since: float
    phase: str = ""
    connection: Connection | None = None
    #: Whether the request has reserved one of the pool's places for a new connection.
    placed: bool = False


class Load:
    """Sends HTTP requests by a schedule until the schedule ends or `run` is stopped."""

    def __init__(
        self,
        target: Target,
        rate: float | Schedule,
        *,
        kinds: Sequence[Kind] = ("fresh", "pooled"),
        on_done: Callable[[Request], None] | None = None,
        keep: bool = True,
        closes: Closes = "client",
        source: Source | None = None,
        pool: int | None = None,
        timeout: float = TIMEOUT,
        check: Callable[[bytes], str] | None = None,
        servers: Sequence[tuple[str, int]] | None = None,
        paths: Iterable[str] | None = None,
    ) -> None:
        """Prepare a load; `run` starts sending.

        Args:
            target: server, and path to request.
            rate: a schedule, or a constant number of requests per second, evenly spaced and without end.
            kinds: kinds of connection, used in turn.
            on_done: called with each request when it is complete or lost.
            keep: store all requests in `requests`; for a long load at a high rate, count them in *on_done* instead
                (`generator.Tally`).
            closes: side that closes a connection that is not pooled.
            source: source address and source ports of the connections.
            pool: maximum number of pooled connections; when all are in use, requests wait.  None: no limit.
            timeout: seconds from the actual start after which a request counts as lost.
            check: called with each response body; returns a description of the defect, or "" if the body is correct.
            servers: name servers (address, port); None: those in /etc/resolv.conf.
            paths: path of each request, in order; without *paths*, or after the last one, the target's own path.

        Raises:
            LoadError: a kind is unknown, or the source ports are outside ``ip_local_port_range``.
        """
        for kind in kinds:
            if kind not in KINDS:
                raise LoadError(f"expected kinds among {', '.join(KINDS)}, got {kind!r}")
        self.schedule = rate if isinstance(rate, Schedule) else Schedule(constant(rate))
        self.target, self.kinds, self.closes = target, tuple(kinds), closes
        self.source = source or Source()
        _check_ports(self.source)
        self.requests: list[Request] = []
        self.pacer = Pacer(self.schedule.times(), self._begin)
        self._keep, self._on_done, self._timeout, self._check = keep, on_done, timeout, check
        self._stub = AsyncStub(servers)
        self._context = target.context()
        self._session: ssl.SSLSession | None = None
        self._idle: deque[Connection] = deque()
        self._waiting: deque[_Exchange] = deque()
        self._open: set[Connection] = set()
        self._pooled: set[Connection] = set()
        #: Number of connections that the pool may still open; infinite if it has no limit.
        self._places = math.inf if pool is None else float(pool)
        self._max_idle = MAX_IDLE if pool is None else pool
        self._serving = False
        self._expiries: deque[_Exchange] = deque()
        self._sweeper: asyncio.TimerHandle | None = None
        self._carried: dict[Connection, _Exchange] = {}
        self._in_flight: set[_Exchange] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._quiet, self._emptied = asyncio.Event(), asyncio.Event()
        self._texts = {False: target.head(close=False), True: target.head(close=True)}
        self._paths = None if paths is None else iter(paths)

    def __repr__(self) -> str:
        counts = f"sent={self.pacer.sent} in_flight={len(self._in_flight)} waiting={len(self._waiting)}"
        return f"<Load {counts} open={len(self._open)} idle={len(self._idle)}>"

    @property
    def rate(self) -> float:
        """Current rate of the schedule, in requests per second."""
        return self.schedule.shape.rate(max(0.0, self.now()))

    @property
    def began(self) -> float:
        """Time at which `run` was called, on `time.monotonic`, in seconds."""
        return self.pacer.began

    def now(self) -> float:
        """Return seconds since `run` was called."""
        return time.monotonic() - self.pacer.began

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Send requests until *stop* is set or the schedule ends; await requests in flight; close all connections."""
        self._sweep()
        try:
            await self.pacer.run(stop or asyncio.Event())
            while self._in_flight:
                self._quiet.clear()
                await self._quiet.wait()
        finally:
            if self._sweeper is not None:
                self._sweeper.cancel()
            for task in self._tasks:
                task.cancel()
            for connection in list(self._open):
                connection.leave(self.closes if self.closes == "abort" else "client")
            while self._open:  # each connection closes within LINGER seconds
                self._emptied.clear()
                await self._emptied.wait()

    def follow_trust(self) -> None:
        """Reload the target's file of root certificates, and verify the chains of new connections with it.

        Raises:
            LoadError: the root certificates are invalid; the previous ones stay in use.
        """
        self._context = self.target.context()

    def lag(self) -> Histogram:
        """Return a histogram of the send lag of all requests so far."""
        return self.pacer.lag

    def starvation(self, rtt: float = 0.0) -> Starvation:
        """Return lag and CPU use of the load so far, with their limits; a longer *rtt* (seconds) allows more lag."""
        return self.pacer.starvation(rtt)

    # --- one request --------------------------------------------------------------------------------------------------
    def _begin(self, intended: float) -> None:
        now = self.now()
        request = Request(intended, self.kinds[(self.pacer.sent - 1) % len(self.kinds)], now)
        if self._keep:
            self.requests.append(request)
        exchange = _Exchange(request, self._text(request.kind), now)
        self._expiries.append(exchange)
        self._in_flight.add(exchange)
        if request.kind == "pooled":
            self._take_connection(exchange)
        else:
            self._resolve(exchange)

    def _text(self, kind: str) -> bytes:
        """Return the encoded request with the next path, for a connection of the given *kind*."""
        close = self.closes == "server" and kind != "pooled"
        path = None if self._paths is None else next(self._paths, None)
        return self._texts[close] if path is None else self.target.head(close=close, path=path)

    def _take_connection(self, exchange: _Exchange) -> None:
        """Send a pooled request on an idle connection, open a new one, or queue the request if the pool is full."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.leaving:  # the server has sent close_notify, and its FIN follows
                self._carry(exchange, connection)
                return
        if self._places > 0:
            self._places -= 1
            exchange.placed = True
            self._resolve(exchange)
        else:
            exchange.phase = "wait"
            self._waiting.append(exchange)

    def _serve_waiting(self) -> None:
        if self._serving:  # recursive call by a request that failed immediately; the outer call's loop continues
            return
        self._serving = True
        while self._waiting and (self._idle or self._places > 0):
            exchange = self._waiting.popleft()
            if exchange in self._in_flight:
                exchange.request.wait = self.now() - exchange.since
                self._take_connection(exchange)
        self._serving = False

    def _resolve(self, exchange: _Exchange) -> None:
        exchange.phase, exchange.since = "dns", self.now()
        if self.target.address is not None:
            self._connect(exchange, self.target.address)
            return
        try:
            answer = self._stub.known(self.target.host)
        except StubError as error:
            self._end(exchange, f"name: {type(error).__name__}")
            return
        if answer is None:
            task = asyncio.create_task(self._look_up(exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        exchange.request.dns = 0.0
        self._connect(exchange, answer.rdata[0])

    async def _look_up(self, exchange: _Exchange) -> None:
        try:
            answer = await self._stub.resolve(self.target.host)
        except StubError as error:
            if exchange in self._in_flight:
                self._end(exchange, f"name: {type(error).__name__}")
            return
        if exchange in self._in_flight:
            exchange.request.dns = self.now() - exchange.since
            self._connect(exchange, answer.rdata[0])

    def _connect(self, exchange: _Exchange, address: str) -> None:
        request = exchange.request
        channel = None
        if request.kind != "tcp":
            session = self._session if request.kind == "resumed" else None
            channel = Channel(self._context, self.target.host, session, self._check)
        connection = Connection(self.now, channel, self._answered, self._lost, self._gone)
        self._open.add(connection)
        if exchange.placed:
            self._pooled.add(connection)
        exchange.connection = connection
        self._carried[connection] = exchange
        connection.open(request, exchange.text, (address, self.target.port), self.source)

    def _carry(self, exchange: _Exchange, connection: Connection) -> None:
        exchange.connection = connection
        self._carried[connection] = exchange
        connection.ask(exchange.request, exchange.text)

    def _answered(self, connection: Connection) -> None:
        """Return a connection to the pool or close it, after the response to its request is complete."""
        exchange = self._carried.pop(connection)
        connection.request = None
        channel = connection.channel
        if exchange.request.kind == "resumed" and channel is not None:
            self._session = channel.session or self._session
        if exchange.request.kind != "pooled":
            connection.leave(self.closes)
        elif channel is not None and channel.reusable and (self._waiting or len(self._idle) < self._max_idle):
            self._idle.append(connection)
        else:
            connection.leave("client")
        self._end(exchange)

    def _lost(self, connection: Connection, cause: str) -> None:
        exchange = self._carried.pop(connection, None)
        if exchange is not None:
            exchange.phase = connection.phase
            self._end(exchange, cause)

    def _gone(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()
        if connection in self._pooled:
            self._pooled.remove(connection)
            self._places += 1
            if connection in self._idle:
                self._idle.remove(connection)
            self._serve_waiting()

    def _sweep(self) -> None:
        """Time out old requests, then schedule the next sweep.

        Requests time out in the order in which they started, so one queue replaces a timer per request.
        """
        oldest = self.now() - self._timeout
        while self._expiries and (self._expiries[0].request.sent <= oldest or self._expiries[0] not in self._in_flight):
            exchange = self._expiries.popleft()
            if exchange in self._in_flight:
                self._expire(exchange)
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _expire(self, exchange: _Exchange) -> None:
        if exchange.connection is not None:
            exchange.connection.fail("timeout")
        else:
            self._end(exchange, "timeout")

    def _end(self, exchange: _Exchange, error: str = "") -> None:
        request = exchange.request
        self._in_flight.discard(exchange)
        if error:
            request.error, request.failed_in, request.done = error, exchange.phase, self.now()
        if exchange.placed and exchange.connection is None:  # the request failed before its connection was opened
            self._places += 1
        if self._on_done is not None:
            self._on_done(request)
        self._serve_waiting()
        if not self._in_flight:
            self._quiet.set()


def _check_ports(source: Source) -> None:
    """Validate a source port range; Linux silently ignores one outside ``ip_local_port_range``.

    Raises:
        LoadError: the range is not within ``ip_local_port_range``.
    """
    if source.ports is None:
        return
    low, high = map(int, _PORTS.read_text(encoding="ascii").split())
    first, last = source.ports
    if not low <= first <= last <= high:
        raise LoadError(f"expected source ports within {low}-{high} (ip_local_port_range), got {first}-{last}")
