"""What the console knows about one host: its last answers, and its counters over the last minute.  Sans-IO."""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from console.hosts import Host
from console.prometheus import Scrape
from console.reading import entries_in, is_number, mapping_in, texts_in
from console.window import Window

#: Seconds over which rates are computed: twice the shorter TTL in the lab's zones.
WINDOW = 60.0
#: Samples of the TIME_WAIT count that are kept: at one every 2 s, twice the 60 s that TIME_WAIT lasts.
HISTORY = 60
#: Where a service reports its certificate; additional certificates have paths below it.
CERTIFICATE = "/admin/certificate"
#: The metrics whose growth is shown, by role.
COUNTERS = {
    "resolver": ("firstbyte_resolver_cache_hits_total", "firstbyte_resolver_cache_misses_total"),
    "edge": ("firstbyte_edge_requests_total",),
}
#: Admin requests, by role.
ADMIN_PATHS = {
    "edge": (CERTIFICATE, "/admin/pool"),
    "origin": (CERTIFICATE,),
    "wan": ("/admin/links", "/admin/counters"),
    # Only the size is shown, so no entries are requested.
    "resolver": ("/admin/cache?limit=0",),
}
_LINK_COUNTERS = {"from": str, "to": str, "packets": float, "dropped_loss": float, "dropped_queue": float}
#: Names that may become part of a path.
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")


@dataclass(frozen=True, slots=True)
class Sample:
    """The result of polling one host once."""

    host: str
    #: When it was polled, in seconds since the epoch.
    at: float
    #: Why there was no answer, in plain words; None if there was one.
    error: str | None = None
    #: The body of /health.
    health: Mapping[str, Any] = field(default_factory=dict)
    scrape: Scrape = field(default_factory=Scrape)
    #: Responses to admin requests, by path.
    admin: Mapping[str, Any] = field(default_factory=dict)
    #: Why an admin request failed; "" if none did.
    refused: str = ""


class Track:
    """One host over time."""

    def __init__(self, host: Host) -> None:
        self.host = host
        #: "waiting" until the first answer, then "ok", "failing" (its health checks) or "down".
        self.status = "waiting"
        #: When the status began, in seconds since the epoch.
        self.since = 0.0
        #: Whether the host ever answered.
        self.seen = False
        #: Samples in a row without an answer, and the time of the first.
        self.misses, self.first_miss = 0, 0.0
        self.error = ""
        #: Whether the host became unreachable together with the router, which says nothing about the host itself.
        self.hidden = False
        self.health: Mapping[str, Any] = {}
        self.scrape = Scrape()
        self.admin: dict[str, tuple[float, Any]] = {}
        self.refused = ""
        self.time_wait: deque[int] = deque(maxlen=HISTORY)
        #: Growth of the metrics in `COUNTERS`, of packets that the kernel dropped before the router read them, and of
        #: packets and losses by link.
        self.counters, self.tun_drops = Window(WINDOW), Window(WINDOW)
        self.links: dict[tuple[str, str], Window] = {}

    def take(self, sample: Sample) -> None:
        """Store an answer."""
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
        """Return the last response to *path* and its time; an empty one if there was none or it is not an object."""
        at, body = self.admin.get(path, (0.0, {}))
        return at, body if isinstance(body, Mapping) else {}

    @property
    def stale(self) -> bool:
        """Whether the host is down, so that what it last said may be out of date."""
        return self.status == "down"

    @property
    def checks(self) -> dict[str, Mapping[str, Any]]:
        """The host's health checks by name."""
        checks = mapping_in(self.health, "checks")
        return {name: check for name, check in checks.items() if isinstance(check, Mapping)}

    @property
    def faults(self) -> list[str]:
        """The names of the active faults."""
        return texts_in(self.health, "faults")

    @property
    def certificates(self) -> tuple[str, ...]:
        """The paths of the host's certificates: the default one, then those for additional names (SNI)."""
        names = texts_in(self.answer(CERTIFICATE)[1], "further")
        return (CERTIFICATE, *(f"{CERTIFICATE}/{name}" for name in names if _NAME.fullmatch(name)))

    @property
    def admin_paths(self) -> tuple[str, ...]:
        """The admin requests to make, given the host's role and its last answers."""
        paths = (*ADMIN_PATHS.get(self.host.role, ()), *self.certificates[1:])
        # /health lists the active faults; their parameters are requested only if there are any.
        return (*paths, "/admin/faults") if self.faults else paths
