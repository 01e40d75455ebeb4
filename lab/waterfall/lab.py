"""Admin requests to the lab: link settings, the resolver's log, the edge's origins, and emptying of caches."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any

from hostfiles.layout import ADMIN_PORT, lab_address
from telemetry.call import CallError, call

WAN = f"http://{lab_address('0.254')}:{ADMIN_PORT}"
TIMEOUT = 3.0
#: Name of the lab's resolver, verified against its certificate for DNS over TLS.
RESOLVER_NAME = "resolver.example.com"


@dataclass(frozen=True, slots=True)
class Links:
    """Round-trip times between regions as currently configured at `wan`."""

    regions: dict[str, ipaddress.IPv4Network]
    #: Round-trip times in milliseconds, keyed by ordered pair of regions.
    rtt: dict[tuple[str, str], float]

    @classmethod
    def of(cls, body: dict[str, Any]) -> "Links":
        """Parse the response of ``GET /admin/links``.

        Raises:
            KeyError, TypeError, ValueError: the response is malformed.
        """
        regions = {name: ipaddress.IPv4Network(cidr) for name, cidr in body["regions"].items()}
        return cls(regions, {(each["from"], each["to"]): float(each["rtt_ms"]) for each in body["links"]})

    def region(self, address: str) -> str | None:
        """Return the name of the region that contains *address*, or None."""
        at = ipaddress.IPv4Address(address)
        return next((name for name, network in self.regions.items() if at in network), None)

    def rtt_ms(self, one: str, other: str) -> float | None:
        """Return the configured round-trip time in ms between two addresses, or None if a region is unknown."""
        a, b = self.region(one), self.region(other)
        if a is None or b is None:
            return None
        if a == b:
            return 0.0
        there, back = self.rtt.get((a, b)), self.rtt.get((b, a))
        return None if there is None or back is None else (there + back) / 2


def links(wan: str = WAN) -> Links | None:
    """Return the link settings of the lab, or None outside the lab."""
    try:
        return Links.of(call(wan, "GET", "/admin/links", timeout=TIMEOUT))
    except (CallError, OSError, KeyError, TypeError, ValueError):
        return None


def resolutions(resolver: str, since: float) -> list[dict[str, Any]]:
    """Return the log of the resolver at *resolver* from *since* (seconds since the epoch) on, oldest entry first."""
    try:
        body = call(f"http://{resolver}:{ADMIN_PORT}", "GET", "/admin/resolutions?limit=100", timeout=TIMEOUT)
        return [each for each in reversed(body) if each["time"] >= since]
    except (CallError, OSError, KeyError, TypeError):
        return []


def upstream_names(edge: str) -> list[str]:
    """Return the host names of the origins behind the edge at *edge*; empty if no edge responds there."""
    try:
        body = call(f"http://{edge}:{ADMIN_PORT}", "GET", "/admin/pool", timeout=TIMEOUT)
        return [str(row["name"]).removeprefix("http://").rpartition(":")[0] for row in body["upstreams"]]
    except (CallError, OSError, KeyError, TypeError):
        return []


def flush(resolver: str) -> None:
    """Empty the cache of the resolver at *resolver*; has no effect outside the lab."""
    _try(resolver, "/admin/cache/flush", {"all": True})


def purge(edge: str) -> None:
    """Empty the connection pools of the edge at *edge*; has no effect on other hosts."""
    _try(edge, "/admin/pool/purge", None)


def _try(address: str, path: str, body: object) -> None:
    try:
        call(f"http://{address}:{ADMIN_PORT}", "POST", path, body, timeout=TIMEOUT)
    except (CallError, OSError):
        return


def own_address(peer: str) -> str:
    """Return the IPv4 address from which this host sends packets to *peer*."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((peer, 9))
        address: str = sock.getsockname()[0]
        return address
