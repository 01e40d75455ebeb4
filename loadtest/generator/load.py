"""An open-loop load: requests begin when the schedule says, whether or not earlier ones are done.

Every chain is verified.  Latency counts from the intended start, so that a client that waits for a stalled server does not
hide the stall (coordinated omission).  Send lag and CPU of the generator are recorded as a validity gate.
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

#: Seconds after which a request counts as lost.
TIMEOUT = 5.0
#: Seconds between two searches for expired requests: the precision of a time-out.
SWEEP = 0.02
#: Idle connections kept when the pool has no limit: more than rate x latency ever needs.
MAX_IDLE = 64
_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


@dataclass(slots=True, eq=False)
class _Exchange:
    """One request in flight."""

    request: Request
    #: The encoded request.
    text: bytes
    #: Start of the phase wait or dns, which no connection measures.
    since: float
    phase: str = ""
    connection: Connection | None = None
    #: Whether it counts against the pool's limit.
    placed: bool = False


class Load:
    """Sends requests by a schedule until the schedule ends or `run` is stopped."""

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
        """Prepare a load.

        Args:
            target: the server, and the path to request.
            rate: requests per second, evenly spaced and without end; or a schedule.
            kinds: the kinds of connection, used in turn.
            on_done: called with each request when it has ended.
            keep: whether to keep all requests in `requests`; for a long, fast load, count them in *on_done* instead
                (`generator.Tally`).
            closes: which side closes a connection that is not kept.
            source: source address and ports.
            pool: limit on pooled connections, beyond which requests wait; None for no limit.
            timeout: seconds from the actual start after which a request is lost.
            check: takes each body and returns what is wrong with it, or an empty string.
            servers: name servers; None reads /etc/resolv.conf.
            paths: the path of each request in turn; afterwards, and by default, the target's own path.

        Raises:
            LoadError: an unknown kind, or source ports that the kernel would ignore.
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
        #: Connections that the pool may still open.
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
        """Requests per second at this point of the schedule."""
        return self.schedule.shape.rate(max(0.0, self.now()))

    @property
    def began(self) -> float:
        """When `run` began, on `time.monotonic`."""
        return self.pacer.began

    def now(self) -> float:
        """Return seconds since `run` began."""
        return time.monotonic() - self.pacer.began

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Send until *stop* is set or the schedule ends; then wait for requests in flight, and close."""
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
            while self._open:  # each closes within LINGER
                self._emptied.clear()
                await self._emptied.wait()

    def lag(self) -> Histogram:
        """Return how late requests were sent."""
        return self.pacer.lag

    def starvation(self, rtt: float = 0.0) -> Starvation:
        """Return whether the generator was the bottleneck; a longer *rtt* in seconds allows more lag."""
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
        """Return the next request, encoded."""
        close = self.closes == "server" and kind != "pooled"
        path = None if self._paths is None else next(self._paths, None)
        return self._texts[close] if path is None else self.target.head(close=close, path=path)

    def _take_connection(self, exchange: _Exchange) -> None:
        """Use an idle connection, open one, or wait for the pool."""
        if self._idle:
            self._carry(exchange, self._idle.pop())
        elif self._places > 0:
            self._places -= 1
            exchange.placed = True
            self._resolve(exchange)
        else:
            exchange.phase = "wait"
            self._waiting.append(exchange)

    def _serve_waiting(self) -> None:
        if self._serving:  # called again by a request that fails at once; the loop below continues anyway
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
        """Keep or close a connection whose request has its response."""
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
        """Expire requests.  They expire in the order in which they began, so none needs a timer of its own."""
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
        if exchange.placed and exchange.connection is None:  # it failed before it had a connection
            self._places += 1
        if self._on_done is not None:
            self._on_done(request)
        self._serve_waiting()
        if not self._in_flight:
            self._quiet.set()


def _check_ports(source: Source) -> None:
    """Refuse a window outside ``ip_local_port_range``, which Linux silently ignores."""
    if source.ports is None:
        return
    low, high = map(int, _PORTS.read_text(encoding="ascii").split())
    first, last = source.ports
    if not low <= first <= last <= high:
        raise LoadError(f"expected source ports within {low}-{high} (ip_local_port_range), got {first}-{last}")
