"""The edge server: listeners, routes, origin connection pools, metrics and the access log."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from typing import Any

from edge import access_log, own_answers
from edge.acceptor import Acceptor
from edge.admission import Admission, Admit, Reject, Reset
from edge.client import Client
from edge.counters import Counters
from edge.errors import BadRequestError, EdgeError, UpstreamError
from edge.exchange import Exchange
from edge.heads import RequestHead
from edge.http2 import Http2Client
from edge.interfaces import Peer, Responder, Work
from edge.names import NameFollower
from edge.route_pool import RoutePool
from edge.routes import Route, find
from edge.settings import Network, Settings
from edge.tapped import TappedTransport
from edge.targets import Target
from edge.upstream import Timing, Upstream, connect
from renewal import Reload
from stub import AsyncStub, StubError
from telemetry import Request, Telemetry, log, stall
from telemetry.tap import Tap

logger = log.get("edge")

#: Interval of the loop that checks deadlines and expires idle connections, in seconds.
TICK = 1.0
#: Minimum interval between two log lines of the same event, in seconds.
LOG_EVERY = 1.0
#: Maximum number of request paths in the cache of routing decisions.
ROUTED_PATHS = 4096


@dataclass(frozen=True)
class Listener:
    """Address, TLS context (None: plain HTTP) and pooling mode of one listening socket."""

    endpoint: tuple[str, int]
    context: ssl.SSLContext | None
    pooled: bool

    @cached_property
    def mutual(self) -> bool:
        """Whether clients present certificates."""
        return self.context is not None and self.context.verify_mode is not ssl.VerifyMode.CERT_NONE


class Proxy:
    """The edge server: accepts clients and forwards their requests to the origins."""

    def __init__(
        self,
        telemetry: Telemetry,
        settings: Settings,
        stub: AsyncStub,
        client_context: Callable[[], ssl.SSLContext | None],
        challenge: Callable[[str], str | None] = lambda _: None,
        admission: Admission | None = None,
        *,
        shared: bool = False,
        revoked: Container[int] = frozenset(),
    ) -> None:
        """Create a proxy that does not listen yet.

        Args:
            telemetry: metrics, fault switches and the admin port.
            settings: routes, time-outs and client limits.
            stub: resolves the origins' names.
            client_context: returns the TLS context for connections to origins; each certificate renewal creates a new
                context.
            challenge: returns the response to an http-01 token, or None if the token is unknown.
            admission: limits the number of client connections; None creates one from `settings`.
            shared: whether other processes listen on the same ports (SO_REUSEPORT).
            revoked: serial numbers of revoked certificates of clients and origins; call `revocations_changed` after
                each change.
        """
        self._shared, self._revoked = shared, revoked
        self.telemetry, self.settings, self.stub = telemetry, settings, stub
        self.client_context, self.challenge = client_context, challenge
        self.timeouts = settings.timeouts
        self.pools = {route: self._pool(route) for route in settings.routes}
        #: Pools of routes from earlier settings that still have requests in flight.
        self._old_pools: list[RoutePool] = []
        self._draining_pools: set[asyncio.Task[None]] = set()
        self.draining = False
        self.admission = admission or Admission(settings.clients.max)
        self._by_address: Counter[str] = Counter()
        self._clients: set[Peer] = set()
        self._exchanges: set[Exchange] = set()
        self._routed: dict[str, RoutePool] = {}
        self._acceptors: list[Acceptor] = []
        self._listeners: list[Listener] = []
        self._restarting: asyncio.Task[None] | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._names = NameFollower(stub)
        self._logged: dict[str, float] = {}
        self.counters = Counters(telemetry.metrics)
        telemetry.metrics.before_render(self._refresh)
        telemetry.faults.declare("drop_upstream", "Refuse to open upstream connections")
        telemetry.faults.declare("upstream_delay", "Forward this many milliseconds late", ms=1000.0)
        telemetry.faults.declare(
            "short_keep_alive", "Close a client's connection after this silence, to the millisecond", s=5.0
        )
        stall.declare(telemetry)
        self.tap = Tap(telemetry)
        telemetry.route("GET", "/admin/pool", lambda _: {"upstreams": self._rows()})
        telemetry.route("POST", "/admin/pool/purge", self._purge)

    def __repr__(self) -> str:
        return f"<Proxy clients={len(self._clients)} requests={len(self._exchanges)} {self.admission!r}>"

    def _pool(self, route: Route) -> RoutePool:
        return RoutePool(route, self.open, self.timeouts, self._origin_unhealthy)

    def reconfigure(self, settings: Settings) -> None:
        """Apply new settings to new requests; requests in flight finish under the old ones."""
        same = settings.timeouts == self.settings.timeouts
        before, self.settings, self.timeouts = self.pools, settings, settings.timeouts
        self.pools = {}
        for route in settings.routes:
            kept = before.pop(route, None) if same else None
            self.pools[route] = kept or self._pool(route)
        self._routed.clear()
        self.admission.limit = settings.clients.max
        for pool in before.values():
            self._old_pools.append(pool)
            task = asyncio.get_running_loop().create_task(pool.drain())
            self._draining_pools.add(task)
            task.add_done_callback(self._draining_pools.discard)

    # --- listening ----------------------------------------------------------------------------------------------------

    async def listen(
        self, endpoint: tuple[str, int], name: str, *, context: ssl.SSLContext | None = None, pooled: bool = True
    ) -> tuple[str, int]:
        """Listen on *endpoint* and return the bound address.

        Raises:
            OSError: the address is in use or not local.
        """
        address = await self._bind(Listener(endpoint, context, pooled))
        self._listeners.append(Listener(address, context, pooled))
        if self._ticker is None:
            self._ticker = asyncio.get_running_loop().create_task(self._tick())
        self.telemetry.health.set(name, ok=True, detail=f"{address[0]}:{address[1]}")
        return address

    async def _bind(self, listener: Listener) -> tuple[str, int]:
        acceptor = Acceptor(
            listener.context,
            lambda: self._admit(listener),
            self._handshake_failed,
            lambda: self._is_load_balancer if self.settings.clients.proxy_protocol else None,
        )
        await acceptor.listen(listener.endpoint, shared=self._shared)
        self._acceptors.append(acceptor)
        return acceptor.address

    def _is_load_balancer(self, address: str) -> bool:
        return _within(address, self.settings.clients.proxy_protocol)

    def _admit(self, listener: Listener) -> Client | None:
        """Return the client object for a new connection, or None if the connection must be reset."""
        decision = self.admission.decide(self._clients, time.monotonic())
        if isinstance(decision, Admit):
            for client in decision.evict:
                client.evict()
                self.counters.evicted.inc()
        else:
            self.counters.rejected.inc(answer="reset" if isinstance(decision, Reset) else "503")
            if self._may_log("clients_full"):
                logger.warning("clients_full", served=self.admission.served, limit=self.admission.limit)
        if isinstance(decision, Reset):
            return None
        client = Client(
            self,
            scheme="http" if listener.context is None else "https",
            pooled=listener.pooled,
            rejected=isinstance(decision, Reject),
            mutual=listener.mutual,
        )
        self._clients.add(client)
        return client

    def _handshake_failed(self, address: str, reason: str) -> None:
        self.counters.failed_handshakes.inc(reason=reason)
        if self._may_log("handshake_failed"):
            logger.warning("handshake_failed", client=address, reason=reason)

    def _may_log(self, event: str) -> bool:
        now = time.monotonic()
        if now - self._logged.get(event, float("-inf")) < LOG_EVERY:
            return False
        self._logged[event] = now
        return True

    async def close(self) -> None:
        """Stop accepting, wait up to `timeouts.drain` seconds for requests in flight, then close every connection."""
        self.draining = True
        if self._restarting is not None:
            await asyncio.gather(self._restarting, return_exceptions=True)
        for acceptor in self._acceptors:
            acceptor.close()
        for client in list(self._clients):
            client.drain()
        deadline = time.monotonic() + self.timeouts.drain
        while self._clients and time.monotonic() < deadline:  # noqa: ASYNC110 - polls: no event signals the end of the last client
            await asyncio.sleep(0.05)  # interval between checks for remaining clients
        for client in list(self._clients):
            client.abort()
        for acceptor in self._acceptors:
            acceptor.abort()
        tasks = [
            *self._draining_pools,
            *([self._ticker] if self._ticker is not None else []),
        ]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._names.close()
        for pool in (*self.pools.values(), *self._old_pools):
            await pool.close()
        await asyncio.sleep(0)  # asyncio closes transports in the next loop iteration

    def certificate_changed(self, reload: Reload) -> None:
        """Drain pooled connections that use the old certificate; if *reload* requests a restart, simulate one."""
        for pool in self.pools.values():
            pool.retire()
        if reload.restart:
            self._restarting = asyncio.get_running_loop().create_task(self._restart(reload.down_s))

    def revocations_changed(self) -> None:
        """Apply new revocations: drain all pooled connections, and close tunnels of revoked clients or origins.

        `handle` checks the client's certificate for each request; `open` checks the origin's for each new connection.
        """
        for pool in self.pools.values():
            pool.retire()
        for exchange in list(self._exchanges):
            exchange.revoked(self._revoked)

    async def _restart(self, down_s: float) -> None:
        """Simulate a process restart: cut every connection and close the listeners for *down_s* seconds."""
        logger.warning("restart_like_a_naive_reload", down_s=down_s, clients=len(self._clients))
        acceptors, self._acceptors = self._acceptors, []
        for acceptor in acceptors:
            acceptor.close()
            acceptor.abort()
        for client in list(self._clients):
            client.abort()
        await asyncio.sleep(down_s)  # simulated downtime of the restart
        if not self.draining:
            for listener in self._listeners:
                await self._bind(listener)

    # --- called by clients --------------------------------------------------------------------------------------------

    def http2(self, client: Client) -> Http2Client:
        """Return the protocol that replaces *client* after ALPN has selected HTTP/2."""
        taking_over = Http2Client(client)
        if client in self._clients:
            self._clients.remove(client)
            self._clients.add(taking_over)
        return taking_over

    def connected(self, client: Peer) -> None:
        """Count a completed connection and its TLS handshake; refuse it if its address has too many connections."""
        address, clients = client.address, self.settings.clients
        self._by_address[address] += 1
        client.distrusted = clients.trusted is not None and not _within(address, clients.trusted)
        if client.session is not None:
            if self.settings.hsts:
                client.more = b"strict-transport-security: max-age=%d\r\n" % self.settings.hsts
            self.counters.handshake(client.session)
        if clients.per_address is not None and self._by_address[address] > clients.per_address and not client.rejected:
            self.counters.rejected.inc(answer="503")
            client.refuse(EdgeError(503, f"expected at most {clients.per_address} connections from one address"))
        elif self.draining:
            client.drain()

    def disconnected(self, client: Peer) -> None:
        """Remove a client whose connection has ended, including one whose handshake never completed."""
        if client in self._clients:
            if client.address:
                self._by_address[client.address] -= 1
                if not self._by_address[client.address]:
                    del self._by_address[client.address]
            self._clients.remove(client)
            self.admission.left(rejected=client.rejected)

    def keep_alive_limit(self) -> float | None:
        """Return the idle time-out in seconds that the fault `short_keep_alive` sets; None while the fault is off."""
        faults = self.telemetry.faults
        if faults.any_on and (short := faults.hit("short_keep_alive")) is not None:
            return float(short["s"])
        return None

    def handle(self, client: Responder, head: RequestHead) -> Work | None:
        """Return the exchange that forwards a request, or None if the edge has already responded itself.

        Raises:
            BadRequestError: the client's certificate is revoked (403), no route matches the path (404), or the body is
                larger than the route allows (413).
        """
        if client.certificate and client.certificate in self._revoked:
            raise BadRequestError(403, f"expected a client certificate that is not revoked; got {client.certificate:x}")
        if client.scheme == "http" or head.method in own_answers.METHODS:
            status = own_answers.answer(client, head, self.challenge, redirect=self.settings.redirect)
            if status is not None:
                self.done(client, None, status)
                return None
        delay, faults = 0.0, self.telemetry.faults
        if faults.any_on and (late := faults.hit("upstream_delay")) is not None:
            delay = float(late["ms"]) / 1000
        pool = self._routed.get(head.path) or self._find(head.path)
        limit, length = pool.route.max_body, head.framing.length
        if limit is not None and length is not None and length > limit:
            raise BadRequestError(413, f"expected a body of at most {limit} bytes, got {length}")
        exchange = Exchange(client, head, pool, delay)
        if self.settings.log_sample is not None and not head.request_id:
            exchange.extra = access_log.new_request_id()
        self._exchanges.add(exchange)
        return exchange

    def done(self, client: Responder, work: Work | None, status: int | str, reason: str = "") -> None:
        """Count a finished request, record its latency and log it."""
        if self.settings.log_sample is not None:
            access_log.write(client, work, status, self.settings.log_sample, reason)
        if isinstance(work, Exchange):
            self._exchanges.discard(work)
            self.counters.request(client.listener, status, time.perf_counter() - work.began)
        else:
            self.counters.request(client.listener, status)

    def _find(self, path: str) -> RoutePool:
        route = find(tuple(self.pools), path)
        if route is None:
            raise BadRequestError(404, f"no route for {path[:80]!r}")
        if len(self._routed) >= ROUTED_PATHS:
            self._routed.clear()
        self._routed[path] = pool = self.pools[route]
        return pool

    # --- called by pools ----------------------------------------------------------------------------------------------

    async def open(self, target: Target, timeout: float) -> tuple[Upstream, Timing]:
        """Open a connection to *target* within *timeout* seconds.

        Raises:
            UpstreamError: the connection failed, or the fault `drop_upstream` is on.
        """
        faults = self.telemetry.faults
        try:
            if faults.any_on and faults.hit("drop_upstream"):
                raise UpstreamError(502, "the fault drop_upstream is on", str(target))
            context = self.client_context() if target.tls else None
            found = await connect(target, self.stub, context, self._lost, timeout, self._revoked)
        except UpstreamError:
            self.counters.connects.inc(upstream=str(target), result="failed")
            raise
        self.counters.connects.inc(upstream=str(target), result="ok")
        upstream = found[0]
        if self.tap.on and upstream.transport is not None:
            upstream.transport = TappedTransport(upstream.transport, self.tap, str(target))  # type: ignore[assignment]  # forwards all other methods
        return found

    def _lost(self, upstream: Upstream) -> None:
        for pool in (*self.pools.values(), *self._old_pools):
            pool.lost(upstream)

    def _origin_unhealthy(self, target: Target) -> None:
        """Retry requests that are still waiting for a response from *target* on other origins."""
        for exchange in [each for each in self._exchanges if each.waits_for == target]:
            exchange.origin_failed("the origin fails its health checks")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)  # interval between time-out checks
            now, clock = time.monotonic(), time.perf_counter()
            for client in [client for client in self._clients if client.deadline <= now]:
                client.expire(now)
            for exchange in list(self._exchanges):
                exchange.tick(clock)
            for pool in (*self.pools.values(), *self._old_pools):
                pool.tick(now)
            self._old_pools = [pool for pool in self._old_pools if pool.busy]
            self._names.follow(self.pools.values())

    # --- metrics and admin pages --------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Update the gauges before a scrape."""
        counters = self.counters
        counters.clients.set(len(self._clients))
        counters.limit.set(self.admission.limit)
        for gauge in (counters.healthy, counters.ejected, counters.pool):
            gauge.values.clear()  # removes targets of earlier settings
        for row in self._rows():
            labels = {"route": row["route"], "upstream": row["name"]}
            counters.healthy.set(float(row["healthy"]), **labels)
            counters.ejected.set(float(row["ejected"]), **labels)
            for state in ("idle", "active"):
                counters.pool.set(float(row[state]), **labels, state=state)

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for route, pool in self.pools.items():
            for target, row in zip(route.targets, pool.core.describe(time.monotonic()), strict=True):
                try:
                    known = self.stub.known(target.host)
                except StubError:
                    known = None
                address = str(known.rdata[0]) if known is not None and known.rdata else ""
                rows.append({**row, "route": route.prefix, "address": address, "waiting": pool.core.waiting})
        return rows

    def _purge(self, _: Request) -> dict[str, int]:
        closed = sum(pool.purge() for pool in self.pools.values())
        self.stub.flush()
        logger.info("pool_purged", closed=closed)
        return {"closed": closed}


def _within(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
