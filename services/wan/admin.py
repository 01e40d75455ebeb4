"""Admin API for links, counters and drop rules.  The README lists the requests."""

import asyncio
import os
from collections.abc import Callable
from typing import Any, TypeVar

from telemetry import AdminError, Request, Telemetry, log
from wan import metrics, tun
from wan.drops import DropRule, Pattern
from wan.errors import SettingError, UnknownLinkError
from wan.link import Link
from wan.router import Router

#: Maximum number of drop rules at a time; every packet is compared with each rule.
MAX_RULES = 16

logger = log.get("wan.admin")
T = TypeVar("T")


async def perform(router: Router, function: Callable[[], T]) -> T:
    """Run *function* in the router's thread and return its result.

    Raises:
        AdminError: 503, the router has stopped.
    """
    if not router.running:
        raise AdminError(503, "the router has stopped")
    return await asyncio.wrap_future(router.submit(function))


class Admin:
    """Admin API handlers and metrics of one router."""

    def __init__(self, telemetry: Telemetry, router: Router, device: str | None = None) -> None:
        """Register metrics and routes; if *device* is given, the counters include drops of that TUN device."""
        self.router, self.network, self.device = router, router.network, device
        metrics.export(telemetry.metrics, self.network, self.counters)
        for method, path, handler in (
            ("GET", "/admin/links", self.links),
            ("DELETE", "/admin/links", self.restore_all),
            ("PUT", "/admin/links/{a}/{b}", self.change),
            ("DELETE", "/admin/links/{a}/{b}", self.restore),
            ("GET", "/admin/counters", lambda _: self.counters()),
            ("POST", "/admin/drops", self.drop),
            ("GET", "/admin/drops", self.drops),
            ("DELETE", "/admin/drops", self.drops_end),
        ):
            telemetry.route(method, path, handler)

    # --- links ------------------------------------------------------------------------------------------------------

    def links(self, _: Request) -> dict[str, Any]:
        """Return all links and regions."""
        return {
            "links": self.network.describe(),
            "regions": {name: str(prefix) for name, prefix in self.network.regions.items()},
            "seed": self.network.seed,
        }

    async def change(self, request: Request) -> dict[str, Any]:
        """Change the settings of one link, or of both directions between two regions."""
        links, body = self._named(request), request.json()
        if not isinstance(body, dict) or not body:
            raise AdminError(400, f'expected a JSON object of settings such as {{"rtt_ms": 80}}, got {body!r}')
        try:
            # Validate both directions before changing either.
            settings = [link.settings.changed(body) for link in links]
        except SettingError as error:
            raise AdminError(400, str(error)) from None

        def configure() -> None:
            for link, new in zip(links, settings, strict=True):
                link.configure(new)

        await perform(self.router, configure)
        for link in links:
            logger.warning("link_changed", source=link.source, target=link.target, **body)
        return {"links": self.network.describe(*links)}

    async def restore(self, request: Request) -> dict[str, Any]:
        """Restore the settings from the links file for one pair of regions."""
        links = self._named(request)
        await perform(self.router, lambda: self.network.restore(*links))
        for link in links:
            logger.info("link_restored", source=link.source, target=link.target)
        return {"links": self.network.describe(*links)}

    async def restore_all(self, request: Request) -> dict[str, Any]:
        """Restore the settings from the links file for every link."""
        await perform(self.router, self.network.restore)
        logger.info("links_restored")
        return self.links(request)

    def _named(self, request: Request) -> list[Link]:
        a, b = request.params["a"], request.params["b"]
        direction = request.query.get("direction", "both")
        if direction not in {"one", "both"} or request.query.keys() - {"direction"}:
            raise AdminError(400, f"expected no query, or direction=one or both, got {request.query!r}")
        try:
            links = [self.network.link(a, b)]
            return links if direction == "one" else [*links, self.network.link(b, a)]
        except UnknownLinkError as error:
            raise AdminError(404, str(error)) from None

    # --- counters ---------------------------------------------------------------------------------------------------

    def counters(self) -> dict[str, Any]:
        """Return all counters of the router."""
        network = self.network
        return {
            "links": [link.counters() for link in network.links.values()],
            "held": len(network),
            "local": network.local.packets,
            "not_ipv4": network.not_ipv4,
            "unroutable": network.unroutable,
            "write_errors": self.router.write_errors,
            "tun_dropped": tun.dropped(self.device) if self.device else 0,
            "real_time": os.sched_getscheduler(0) in {os.SCHED_RR, os.SCHED_FIFO},
        }

    # --- drop rules -------------------------------------------------------------------------------------------------

    async def drop(self, request: Request) -> dict[str, Any]:
        """Add a rule that drops the next matching TCP segments."""
        if len(self.network.rules) >= MAX_RULES:
            raise AdminError(409, f"expected at most {MAX_RULES} rules at a time: DELETE /admin/drops")
        try:
            rule = DropRule(Pattern.of(request.json()))
        except SettingError as error:
            raise AdminError(400, str(error)) from None
        await perform(self.router, lambda: self.network.rules.append(rule))
        logger.warning("drop_rule_added", **rule.as_dict())
        return self.drops(request)

    def drops(self, _: Request) -> dict[str, Any]:
        """Return all drop rules, each with the segments that it has dropped."""
        return {"drops": [rule.as_dict() for rule in self.network.rules]}

    async def drops_end(self, request: Request) -> dict[str, Any]:
        """Remove all drop rules."""
        await perform(self.router, self.network.rules.clear)
        logger.info("drop_rules_removed")
        return self.drops(request)
