"""Recorded data of one host: its latest responses, and its counters over the last minute.  Sans-IO."""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from console.hosts import Host
from console.prometheus import Scrape
from console.reading import entries_in, is_number, mapping_in, texts_in
from console.window import Window

#: Period over which rates are computed, in seconds: twice the shorter TTL in the lab's zones.
WINDOW = 60.0
#: Number of TIME_WAIT counts to keep.  With one sample every 2 s, they cover twice the 60 s that TIME_WAIT lasts.
HISTORY = 60
#: Admin path of a service's certificate; additional certificates have paths below it.
CERTIFICATE = "/admin/certificate"
#: Names of the counters whose growth is shown, keyed by role.
COUNTERS = {
    "resolver": ("firstbyte_resolver_cache_hits_total", "firstbyte_resolver_cache_misses_total"),
    "edge": ("firstbyte_edge_requests_total",),
}
#: Paths of admin requests, keyed by role.
ADMIN_PATHS = {
    "edge": (CERTIFICATE, "/admin/pool"),
    "origin": (CERTIFICATE,),
    "wan": ("/admin/links", "/admin/counters"),
    # The page shows only the cache's size, so request no entries.
    "resolver": ("/admin/cache?limit=0",),
}
_LINK_COUNTERS = {"from": str, "to": str, "packets": float, "dropped_loss": float, "dropped_queue": float}
#: Domain names that are safe as part of a request path.
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")


@dataclass(frozen=True, slots=True)
class Sample:
    """The result of one poll of one host."""

    host: str
    #: Time of the poll, in seconds since the epoch.
    at: float
    #: User-readable reason why the host did not respond, or None if it responded.
    error: str | None = None
    #: JSON body of /health.
    health: Mapping[str, Any] = field(default_factory=dict)
    scrape: Scrape = field(default_factory=Scrape)
    #: JSON bodies of the admin responses, keyed by path.
    admin: Mapping[str, Any] = field(default_factory=dict)
    #: Reason why an admin request failed, or "" if none failed.
    refused: str = ""


class Track:
    """Recorded data of one host over time."""

    def __init__(self, host: Host) -> None:
        self.host = host
        #: "waiting" until the first response, then "ok", "failing" (a health check fails) or "down".
        self.status = "waiting"
        #: Time of the last status change, in seconds since the epoch.
        self.since = 0.0
        #: Whether the host has ever responded.
        self.seen = False
        #: Number of consecutive polls without a response, and the time of the first of them.
        self.misses, self.first_miss = 0, 0.0
        self.error = ""
        #: Whether the host became unreachable together with the router, so that its actual status is unknown.
        self.hidden = False
        self.health: Mapping[str, Any] = {}
        self.scrape = Scrape()
        self.admin: dict[str, tuple[float, Any]] = {}
        self.refused = ""
        self.time_wait: deque[int] = deque(maxlen=HISTORY)
        #: Sliding windows of the metrics in `COUNTERS`, and of the packets that the kernel dropped before the router
        #: read them.
        self.counters, self.tun_drops = Window(WINDOW), Window(WINDOW)
        #: Sliding windows of the sent and lost packets, keyed by link.
        self.links: dict[tuple[str, str], Window] = {}

    def take(self, sample: Sample) -> None:
        """Record a successful poll."""
        self.seen, self.misses, self.error, self.hidden = True, 0, "", False
        self.health, self.scrape, self.refused = sample.health, sample.scrape, sample.refused
        self.admin.update({path: (sample.at, body) for path, body in sample.admin.items()})
        self.time_wait.append(int(sample.scrape.total("firstbyte_sockets", state="tw") or 0))
        totals = [sample.scrape.total(name) for name in COUNTERS.get(self.host.role, ())]
        if totals and None not in totals:
            self.counters.add(sample.at, *(total for total in totals if total is not None))
        packets = mapping_in(sample.admin, "/admin/counters")
        if is_number(dropped := packets.get("tun_dropped")):
            self.tun_drops.add(sample.at, dropped)
        for link in entries_in(packets, "links", _LINK_COUNTERS):
            window = self.links.setdefault((link["from"], link["to"]), Window(WINDOW))
            window.add(sample.at, link["packets"], link["dropped_loss"] + link["dropped_queue"])

    def answer(self, path: str) -> tuple[float, Mapping[str, Any]]:
        """Return the time and body of the last response for *path*; the body is empty if absent or not an object."""
        at, body = self.admin.get(path, (0.0, {}))
        return at, body if isinstance(body, Mapping) else {}

    @property
    def stale(self) -> bool:
        """Whether the host is down, so that its last responses may be out of date."""
        return self.status == "down"

    @property
    def checks(self) -> dict[str, Mapping[str, Any]]:
        """The host's health checks, keyed by name."""
        checks = mapping_in(self.health, "checks")
        return {name: check for name, check in checks.items() if isinstance(check, Mapping)}

    @property
    def faults(self) -> list[str]:
        """The names of the faults that are on."""
        return texts_in(self.health, "faults")

    @property
    def certificates(self) -> tuple[str, ...]:
        """Admin paths of the host's certificates: first the default one, then those for additional names (SNI)."""
        names = texts_in(self.answer(CERTIFICATE)[1], "additional")
        return (CERTIFICATE, *(f"{CERTIFICATE}/{name}" for name in names if _NAME.fullmatch(name)))

    @property
    def admin_paths(self) -> tuple[str, ...]:
        """Paths of the next admin requests, given the host's role and its last responses."""
        paths = (*ADMIN_PATHS.get(self.host.role, ()), *self.certificates[1:])
        # /health lists the names of active faults; request their parameters only if there are any.
        return (*paths, "/admin/faults") if self.faults else paths
