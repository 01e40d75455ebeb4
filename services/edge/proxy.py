"""The edge as a whole: listeners, routes, pools and what they tell an operator."""

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge.admission import Admission, Admit, Reset, TurnAway
from edge.client import Client
from edge.door import Door
from edge.errors import BadRequestError, UpstreamError
from edge.exchange import Exchange
from edge.pool import Limits, Open, Pool, Use
from edge.routes import Route, Target, find
from edge.upstream import Timing, Upstream, connect
from renewal import Reload
from stub import AsyncStub
from telemetry import Request, Telemetry, log

logger = log.get("edge")

#: Seconds between looks at deadlines and idle connections.
TICK = 1.0
#: Seconds between two lines of the log that say that there is no room.
SAY_FULL_EVERY = 1.0
#: Seconds that requests under way have when the edge stops.
DRAIN = 10.0


@dataclass(frozen=True, slots=True)
class Listener:
    """Where and how clients are served."""

    endpoint: tuple[str, int]
    context: ssl.SSLContext | None
    pooled: bool


class RoutePool:
    """The pool of one route, with the sockets that the core does not know."""

    def __init__(self, proxy: "Proxy", route: Route, limits: Limits | None) -> None:
        self.core = Pool(route.targets, limits)
        self._proxy, self._targets = proxy, route.targets
        self._open: dict[int, Upstream] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._turn = 0

    def spread(self, avoid: frozenset[Target]) -> Target:
        """Return the next target for a connection that is not pooled."""
        targets = [t for t in self._targets if t not in avoid] or list(self._targets)
        self._turn += 1
        return targets[self._turn % len(targets)]

    async def wait(self, timeout: float) -> None:
        """Wait until a connection was given back (or *timeout* seconds)."""
        future = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        self.core.waiting += 1
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(future, timeout)
        finally:
            self.core.waiting -= 1
            with contextlib.suppress(ValueError):
                self._waiters.remove(future)

    async def perform(self, decision: Use | Open) -> tuple[Upstream, Timing, bool]:
        """Do what the core decided; return the connection, what it cost, and whether it was there already."""
        if isinstance(decision, Use):
            return self._open[id(decision.connection)], Timing(), True
        try:
            upstream, timing = await self._proxy.open(decision.target)
        except BaseException as error:
            self.core.failed(decision.target, time.monotonic())
            self._wake()
            if isinstance(error, UpstreamError):
                logger.warning("upstream_failed", upstream=error.upstream, address=error.address, reason=error.reason)
            raise
        upstream.pooled = self.core.opened(decision.target, time.monotonic())
        self._open[id(upstream.pooled)] = upstream
        return upstream, timing, False

    def give_back(self, upstream: Upstream, *, reusable: bool) -> None:
        """A request is done with *upstream*."""
        connection = upstream.pooled
        if connection is None:
            upstream.close()
            return
        if not self.core.give_back(connection, time.monotonic(), reusable=reusable and upstream.alive):
            self._open.pop(id(connection), None)
            upstream.close()
        self._wake()

    def lost(self, upstream: Upstream) -> None:
        """An idle connection was closed by the origin."""
        if upstream.pooled is not None:
            self.core.lost(upstream.pooled)
            self._open.pop(id(upstream.pooled), None)

    def close(self, connections: Sequence[Any]) -> int:
        """Close what the core let go; return how many."""
        for connection in connections:
            upstream = self._open.pop(id(connection), None)
            if upstream is not None:
                upstream.close()
        return len(connections)

    def _wake(self) -> None:
        while self._waiters:
            future = self._waiters.popleft()
            if not future.done():
                future.set_result(None)
                return


class Proxy:
    """Everything between clients and origins."""

    def __init__(
        self,
        telemetry: Telemetry,
        routes: Sequence[Route],
        stub: AsyncStub,
        client_context: Callable[[], ssl.SSLContext | None],
        challenge: Callable[[str], str | None] = lambda _: None,
        limits: Limits | None = None,
        admission: Admission | None = None,
    ) -> None:
        """Make one.

        Args:
            telemetry: counters, faults, admin port.
            routes: path prefixes and their origins.
            stub: finds origins by name.
            client_context: gives the context for outgoing TLS, a new one after each renewal.
            challenge: answers http-01 tokens.
            limits: of each pool.
            admission: how many clients are served at one time.
        """
        self.telemetry, self.routes, self.stub = telemetry, tuple(routes), stub
        self.client_context, self.challenge = client_context, challenge
        self.pools = {route: RoutePool(self, route, limits) for route in self.routes}
        self.draining = False
        self.admission = admission or Admission()
        self._clients: set[Client] = set()
        self._doors: list[Door] = []
        self._said_full = float("-inf")
        self._listeners: list[Listener] = []
        self._restarting: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None
        metrics = telemetry.metrics
        self._requests = metrics.counter(
            "firstbyte_edge_requests_total", "Requests by listener and status", "listener", "status"
        )
        self._seconds = metrics.histogram(
            "firstbyte_edge_request_seconds", "From the end of a request's head to the end of its response",
            (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30), "listener",
        )  # fmt: skip
        self._handshakes = metrics.counter(
            "firstbyte_edge_handshakes_total", "TLS handshakes with clients", "version", "resumed"
        )
        self._connects = metrics.counter(
            "firstbyte_edge_upstream_connects_total", "Connections opened", "upstream", "result"
        )
        pool = metrics.gauge("firstbyte_edge_pool_connections", "Pooled connections", "upstream", "state")
        clients = metrics.gauge("firstbyte_edge_clients", "Client connections that are open or in their TLS handshake")
        most = metrics.gauge("firstbyte_edge_clients_most", "Client connections that are served at one time")
        self._displaced = metrics.counter(
            "firstbyte_edge_clients_displaced_total",
            "Client connections that were closed to make room, idle or in their TLS handshake",
        )
        self._refused = metrics.counter(
            "firstbyte_edge_clients_refused_total", "Client connections for which there was no room", "answer"
        )

        def refresh() -> None:
            clients.set(len(self._clients))
            most.set(self.admission.most)
            for row in self._rows():
                for state in ("idle", "active"):
                    pool.set(float(row[state]), upstream=row["name"], state=state)

        metrics.before_render(refresh)
        telemetry.faults.declare("drop_upstream", "Refuse to open upstream connections")
        telemetry.faults.declare("upstream_delay", "Forward this many milliseconds late", ms=1000.0)
        telemetry.faults.declare("short_keep_alive", "Close a client's connection after this silence, to the millisecond", s=5.0)  # fmt: skip
        telemetry.route("GET", "/admin/pool", lambda _: {"upstreams": self._rows()})
        telemetry.route("POST", "/admin/pool/purge", self._purge)

    async def listen(
        self, endpoint: tuple[str, int], name: str, *, context: ssl.SSLContext | None = None, pooled: bool = True
    ) -> tuple[str, int]:
        """Serve clients on *endpoint*; return the address.  Raises `OSError`."""
        address = self._bind(Listener(endpoint, context, pooled))
        self._listeners.append(Listener(address, context, pooled))
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().create_task(self._tick())
        self.telemetry.health.set(name, ok=True, detail=f"{address[0]}:{address[1]}")
        return address

    def _bind(self, listener: Listener) -> tuple[str, int]:
        door = Door(listener.endpoint, listener.context, lambda: self._admit(listener))
        self._doors.append(door)
        return door.address

    def _admit(self, listener: Listener) -> Client | None:
        """Return the client for one connection more, or None where it is to be reset."""
        now = time.monotonic()
        decision = self.admission.decide(self._clients, now)
        if isinstance(decision, Admit):
            for client in decision.instead:
                client.make_room()
                self._displaced.inc()
        else:
            self._refused.inc(answer="reset" if isinstance(decision, Reset) else "503")
            if now - self._said_full >= SAY_FULL_EVERY:
                self._said_full = now
                logger.warning("clients_full", served=self.admission.served, most=self.admission.most)
        if isinstance(decision, Reset):
            return None
        scheme = "http" if listener.context is None else "https"
        client = Client(self, scheme=scheme, pooled=listener.pooled, turned_away=isinstance(decision, TurnAway))
        self._clients.add(client)
        return client

    async def close(self) -> None:
        """Stop accepting, let requests under way finish, close the rest."""
        self.draining = True
        if self._restarting is not None:
            await asyncio.gather(self._restarting, return_exceptions=True)
        for door in self._doors:
            door.close()
        for client in list(self._clients):
            client.drain()
        deadline = time.monotonic() + DRAIN
        while self._clients and time.monotonic() < deadline:  # noqa: ASYNC110 - bounded, and clients are many
            await asyncio.sleep(0.05)  # polls
        for client in list(self._clients):
            client.abort()
        for door in self._doors:
            await door.abort()
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        for pool in self.pools.values():
            pool.close(pool.core.purge())
        await asyncio.sleep(0)  # transports close in the next round of the loop

    def certificate_changed(self, reload: Reload) -> None:
        """Drain pooled connections of the old certificate; do what a restart does where *reload* says so."""
        for pool in self.pools.values():
            pool.close(pool.core.retire())
        if reload.restart:
            self._restarting = asyncio.get_running_loop().create_task(self._restart(reload.down_s))

    async def _restart(self, down_s: float) -> None:
        """Do to clients what a restart of this process does: nobody listens for a while, and every connection is cut."""
        logger.warning("restart_like_a_naive_reload", down_s=down_s, clients=len(self._clients))
        doors, self._doors = self._doors, []
        for door in doors:
            door.close()
            await door.abort()
        for client in list(self._clients):
            client.abort()
        await asyncio.sleep(down_s)  # the restart without grace that was asked for
        if not self.draining:
            for listener in self._listeners:
                self._bind(listener)

    # --- for clients and exchanges ----------------------------------------------------------------------------------

    def connected(self, client: Client) -> None:
        """A client connection is ready."""
        tls = client.transport.get_extra_info("ssl_object")
        if tls is not None:
            self._handshakes.inc(version=tls.version() or "?", resumed=str(bool(tls.session_reused)).lower())
        if self.draining:
            client.drain()

    def disconnected(self, client: Client) -> None:
        """A client connection ended, or never came to be one."""
        if client in self._clients:
            self._clients.remove(client)
            self.admission.left(turned_away=client.turned_away)

    def short_keep_alive(self) -> float | None:
        """Return the seconds of silence that a client has from now on, where the fault says so."""
        faults = self.telemetry.faults
        if faults.any_on and faults.hit("short_keep_alive"):
            return float((faults.get("short_keep_alive") or {}).get("s", 0))
        return None

    async def forward(self, exchange: Exchange) -> None:
        """Send the request to an origin of its route; errors as `Exchange.run`."""
        faults = self.telemetry.faults
        if faults.any_on and faults.hit("upstream_delay"):
            await asyncio.sleep(float((faults.get("upstream_delay") or {}).get("ms", 0)) / 1000)  # the fault itself
        path = exchange.target.partition(b"?")[0].decode("latin-1")
        route = find(self.routes, path)
        if route is None:
            raise BadRequestError(404, f"no route for {path[:80]!r}")
        await exchange.run(route)

    def done(self, client: Client, exchange: Exchange) -> None:
        """Count a request that ended."""
        listener = client.scheme if client.pooled else f"{client.scheme}-fresh"
        self._requests.inc(listener=listener, status=str(exchange.status or "aborted"))
        self._seconds.observe(time.perf_counter() - exchange.began, listener=listener)

    async def open(self, target: Target) -> tuple[Upstream, Timing]:
        """Open a connection to *target*; raise `UpstreamError`."""
        faults = self.telemetry.faults
        try:
            if faults.any_on and faults.hit("drop_upstream"):
                raise UpstreamError(502, "the fault drop_upstream is on", str(target))
            found = await connect(target, self.stub, self.client_context() if target.tls else None, self._lost)
        except UpstreamError:
            self._connects.inc(upstream=str(target), result="failed")
            raise
        self._connects.inc(upstream=str(target), result="ok")
        return found

    def give_back(self, route: Route, upstream: Upstream, *, reusable: bool) -> None:
        """An exchange is done with *upstream*."""
        self.pools[route].give_back(upstream, reusable=reusable)

    def _lost(self, upstream: Upstream) -> None:
        for pool in self.pools.values():
            pool.lost(upstream)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)  # from look to look
            now = time.monotonic()
            for client in list(self._clients):
                client.check_deadline(now)
            for pool in self.pools.values():
                pool.close(pool.core.expire(now))

    # --- admin ------------------------------------------------------------------------------------------------------

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for route, pool in self.pools.items():
            for row in pool.core.describe(time.monotonic()):
                known = self.stub.cache.get(
                    str(row["name"]).rpartition(":")[0].removeprefix("http://"), "A", time.monotonic()
                )
                address = known.rdata[0] if known is not None and hasattr(known, "rdata") else ""
                rows.append({**row, "route": route.prefix, "address": address, "waiting": pool.core.waiting})
        return rows

    def _purge(self, _: Request) -> dict[str, int]:
        closed = sum(pool.close(pool.core.purge()) for pool in self.pools.values())
        self.stub.flush()
        logger.info("pool_purged", closed=closed)
        return {"closed": closed}
