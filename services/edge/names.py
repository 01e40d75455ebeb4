"""Tracks the DNS addresses of origins; when an address is removed from DNS, connections to it are drained."""

import asyncio
from collections.abc import Iterable

from edge.route_pool import RoutePool
from edge.targets import Target
from stub import AsyncStub, StubError
from telemetry import log

logger = log.get("edge.names")


class NameFollower:
    """Repeats the look-ups of target names when their cached answers expire."""

    def __init__(self, stub: AsyncStub) -> None:
        """Create a follower that uses the cache of *stub*."""
        self._stub = stub
        self._resolving: dict[Target, asyncio.Task[None]] = {}

    def follow(self, pools: Iterable[RoutePool]) -> None:
        """Pass the cached addresses of each target to its pool; start a look-up if they have expired."""
        for pool in pools:
            for target in pool.route.targets:
                if target in self._resolving or not pool.core.in_use(target):
                    continue
                try:
                    known = self._stub.known(target.host)
                except StubError:
                    continue  # a failed look-up must not drain working connections
                if known is not None:
                    pool.core.resolved(target, frozenset(map(str, known.rdata)))
                else:
                    self._resolving[target] = asyncio.get_running_loop().create_task(self._resolve(target))

    async def close(self) -> None:
        """Cancel look-ups in progress."""
        tasks = list(self._resolving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _resolve(self, target: Target) -> None:
        try:
            await self._stub.resolve(target.host)
        except StubError as error:
            logger.info("name_not_refreshed", upstream=str(target), reason=str(error))
        finally:
            del self._resolving[target]
