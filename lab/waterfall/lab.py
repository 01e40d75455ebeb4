"""What only the lab knows: configured links and the resolver's hops; and how to empty its caches."""

import ipaddress
from dataclasses import dataclass
from typing import Any

from hostfiles.layout import ADMIN_PORT, lab_address
from telemetry.call import CallError, call

WAN = f"http://{lab_address('0.254')}:{ADMIN_PORT}"
TIMEOUT = 3.0


@dataclass(frozen=True, slots=True)
class Links:
    """Round-trip times between regions, as configured at `wan` now."""

    regions: dict[str, ipaddress.IPv4Network]
    #: Milliseconds by ordered pair of regions.
    rtt: dict[tuple[str, str], float]

    @classmethod
    def of(cls, body: dict[str, Any]) -> "Links":
        """Read the response of ``GET /admin/links``; raise `KeyError`, `TypeError` or `ValueError` if it is malformed."""
        regions = {name: ipaddress.IPv4Network(cidr) for name, cidr in body["regions"].items()}
        return cls(regions, {(each["from"], each["to"]): float(each["rtt_ms"]) for each in body["links"]})

    def region(self, address: str) -> str | None:
        """Return the region of *address*."""
        at = ipaddress.IPv4Address(address)
        return next((name for name, network in self.regions.items() if at in network), None)

    def rtt_ms(self, one: str, other: str) -> float | None:
        """Return the configured round-trip time between two addresses; None if a region is unknown."""
        a, b = self.region(one), self.region(other)
        if a is None or b is None:
            return None
        if a == b:
            return 0.0
        there, back = self.rtt.get((a, b)), self.rtt.get((b, a))
        return None if there is None or back is None else (there + back) / 2


def links(wan: str = WAN) -> Links | None:
    """Return the lab's links; None outside the lab."""
    try:
        return Links.of(call(wan, "GET", "/admin/links", timeout=TIMEOUT))
    except (CallError, OSError, KeyError, TypeError, ValueError):
        return None


def resolutions(resolver: str, since: float) -> list[dict[str, Any]]:
    """Return what the resolver at *resolver* resolved since *since* (seconds since the epoch), oldest first."""
    try:
        body = call(f"http://{resolver}:{ADMIN_PORT}", "GET", "/admin/resolutions?limit=100", timeout=TIMEOUT)
        return [each for each in reversed(body) if each["time"] >= since]
    except (CallError, OSError, KeyError, TypeError):
        return []


def upstream_names(edge: str) -> list[str]:
    """Return the names of the origins of the edge at *edge*; empty if it is no edge."""
    try:
        body = call(f"http://{edge}:{ADMIN_PORT}", "GET", "/admin/pool", timeout=TIMEOUT)
        return [str(row["name"]).removeprefix("http://").rpartition(":")[0] for row in body["upstreams"]]
    except (CallError, OSError, KeyError, TypeError):
        return []


def flush(resolver: str) -> None:
    """Empty the resolver's cache; do nothing outside the lab."""
    _try(resolver, "/admin/cache/flush", {"all": True})


def purge(edge: str) -> None:
    """Empty the connection pools of the edge at *edge*, if it is one."""
    _try(edge, "/admin/pool/purge", None)


def _try(address: str, path: str, body: object) -> None:
    try:
        call(f"http://{address}:{ADMIN_PORT}", "POST", path, body, timeout=TIMEOUT)
    except (CallError, OSError):
        return
