"""Connection pool of one route with its sockets: performs the actions of `edge.pool` and serves queued requests."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from edge.errors import UpstreamError
from edge.health_checks import HealthChecker, Opener
from edge.pool import Connection, Open, Outcome, Pool, Refuse, Use, Wait
from edge.retry import RetryBudget
from edge.routes import Route
from edge.targets import Target
from edge.timeouts import Timeouts
from edge.upstream import Timing, Upstream
from telemetry import log

logger = log.get("edge.pool")

#: A connection attempt that fails after at least this many seconds counts as a time-out, whatever error the kernel
#: reports: for an address that no host uses, it reports "No route to host" after 3 s.
SLOW = 1.0


class Requester(Protocol):
    """Request that needs a connection; exactly one callback is called, possibly before `RoutePool.acquire` returns."""

    def __hash__(self) -> int:
        """Return a hash, because the queue stores requests as keys."""

    def connected(self, upstream: Upstream, timing: Timing, *, reused: bool) -> None:
        """Accept *upstream* for sending the request."""

    def not_connected(self, target: Target | None, error: UpstreamError) -> None:
        """Handle a failure: *target* could not be reached, or no connection became free in time (*target* is None)."""


class RoutePool:
    """Connection pool of one route."""

    def __init__(
        self,
        route: Route,
        opener: Opener,
        timeouts: Timeouts,
        on_unhealthy: Callable[[Target], None] = lambda _: None,
    ) -> None:
        """Create an empty pool.

        Args:
            route: the route, with its targets and limits.
            opener: opens a connection to a target within a time-out in seconds, or raises `UpstreamError`.
            timeouts: used if the route has no time-outs of its own.
            on_unhealthy: called after each failed health check of a target, if another target can serve.
        """
        self.route, self.timeouts = route, route.timeouts or timeouts
        self.core = Pool(route.targets, route.limits, route.weights)
        self.retries = RetryBudget()
        self._opener = opener
        self._opening: dict[asyncio.Task[None], Requester] = {}
        #: Queued requests with the time at which each was queued, oldest first.
        self._since: dict[Requester, float] = {}
        self._turn = 0
        self._on_unhealthy = on_unhealthy
        self._checkers = [
            HealthChecker(target, route.health, opener, partial(self._checked, target))
            for target in route.targets
            if route.health is not None
        ]
        self._checks = [asyncio.ensure_future(checker.run()) for checker in self._checkers]

    @property
    def busy(self) -> bool:
        """Whether a request is using or waiting for a connection of this pool."""
        return bool(self._opening or self._since or any(row["active"] for row in self.core.describe(0.0)))

    def acquire(self, request: Requester, avoid: frozenset[Target] = frozenset(), *, fresh: bool = False) -> None:
        """Get a connection for *request*; see `Pool.take` for *avoid* and *fresh*."""
        now = time.monotonic()
        decision = self.core.take(request, now, avoid, fresh=fresh)
        if isinstance(decision, Wait):
            self._since[request] = now
        else:
            self._perform(request, decision)

    def acquire_unpooled(self, request: Requester, avoid: frozenset[Target] = frozenset()) -> None:
        """Open an unpooled connection for *request* to the next target in round-robin order."""
        targets = [target for target in self.route.targets if target not in avoid] or list(self.route.targets)
        self._turn += 1
        self._start(request, targets[self._turn % len(targets)], pooled=False)

    def abandon(self, request: Requester) -> None:
        """Cancel the wait of *request*; none of its callbacks is called afterwards."""
        if self.core.leave(request):
            del self._since[request]
            return
        for task, requester in self._opening.items():
            if requester is request:
                task.cancel()

    def release(self, upstream: Upstream, outcome: Outcome, *, reusable: bool) -> None:
        """Return *upstream* to the pool after a request with the given *outcome*."""
        connection = upstream.pooled
        if connection is None:
            upstream.close()
            return
        kept = self.core.give_back(connection, time.monotonic(), outcome, reusable=reusable and upstream.alive)
        if not kept:
            upstream.close()
        self._serve_waiters()

    def lost(self, upstream: Upstream) -> None:
        """Remove an idle connection that the origin has closed."""
        if upstream.pooled is not None:
            self.core.lost(upstream.pooled)

    def purge(self) -> int:
        """Close all idle connections; return their number."""
        return self._close(self.core.purge())

    def retire(self) -> None:
        """Drain the connections that use the old client certificate."""
        self._close(self.core.retire())
        for checker in self._checkers:
            checker.retire()

    def tick(self, now: float) -> None:
        """Close expired idle connections, and fail requests that have been queued for too long."""
        timeout = self.timeouts.pool
        self._close(self.core.expire(now))
        late = []
        for request, since in self._since.items():
            if since + timeout > now:
                break
            late.append(request)
        for request in late:
            self.abandon(request)
            reason = f"no connection was free within {timeout:g} s"
            request.not_connected(None, UpstreamError(503, reason, self.route.prefix))
        self._serve_waiters()

    async def close(self) -> None:
        """Close idle connections and cancel pending connection attempts."""
        self.retire()
        tasks = (*self._opening, *self._checks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self) -> None:
        """Close idle connections and let requests in flight finish, because another pool now serves the route."""
        self.retire()
        for task in self._checks:
            task.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)

    def _perform(self, request: Requester, decision: Use | Open | Refuse) -> None:
        if isinstance(decision, Use):
            request.connected(decision.connection.upstream, Timing(), reused=True)
        elif isinstance(decision, Open):
            self._start(request, decision.target, pooled=True)
        else:
            request.not_connected(None, UpstreamError(503, decision.reason, self.route.prefix))

    def _start(self, request: Requester, target: Target, *, pooled: bool) -> None:
        task = asyncio.get_running_loop().create_task(self._open(request, target, pooled=pooled))
        self._opening[task] = request
        task.add_done_callback(partial(self._opened, target, pooled))

    def _opened(self, target: Target, pooled: bool, task: asyncio.Task[None]) -> None:
        """Update the pool after a connection attempt was cancelled, even if its task never started."""
        del self._opening[task]
        if task.cancelled() and pooled:
            self.core.cancelled(target, time.monotonic())
            self._serve_waiters()

    async def _open(self, request: Requester, target: Target, *, pooled: bool) -> None:
        began = time.monotonic()
        try:
            upstream, timing = await self._opener(target, self.timeouts.connect)
        except UpstreamError as error:
            logger.warning("upstream_failed", upstream=error.upstream, address=error.address, reason=error.reason)
            if pooled:
                now = time.monotonic()
                slow = error.status == 504 or now - began >= SLOW
                self.core.failed(target, now, Outcome.TIMED_OUT if slow else Outcome.FAILED)
            request.not_connected(target, error)
        else:
            if pooled:
                address = upstream.address.rpartition(":")[0]
                upstream.pooled = self.core.opened(target, time.monotonic(), address)
                upstream.pooled.upstream = upstream
            request.connected(upstream, timing, reused=False)
        self._serve_waiters()

    def _serve_waiters(self) -> None:
        while self._since and (found := self.core.next_waiter(time.monotonic())) is not None:
            request, decision = found
            del self._since[request]
            self._perform(request, decision)

    def _checked(self, target: Target, reason: str, *, timed_out: bool) -> None:
        if self.core.checked(target, time.monotonic(), healthy=not reason, timed_out=timed_out):
            logger.warning("health_changed", upstream=str(target), healthy=not reason, reason=reason)
            self._serve_waiters()
        if reason and self.core.has_alternative(target):
            self._on_unhealthy(target)

    def _close(self, connections: Sequence[Connection]) -> int:
        for connection in connections:
            connection.upstream.close()
        return len(connections)
