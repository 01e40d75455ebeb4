"""Which path goes to which origins: ``/news=news.example.com:8443``; the longest prefix wins."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge.pool import Limits
from edge.targets import Target, parse_target
from edge.timeouts import Timeouts


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A request that every origin of a route is asked again and again; 2xx and 3xx are well."""

    path: str
    #: Seconds from one check to the next, and until one counts as failed.
    interval: float
    timeout: float


@dataclass(frozen=True, slots=True)
class Route:
    """A path prefix and the origins behind it."""

    prefix: str
    targets: tuple[Target, ...]
    #: The share of requests that each target gets, relative to the others; equal where empty.
    weights: tuple[int, ...] = ()
    #: None: those of the edge.
    timeouts: Timeouts | None = None
    limits: Limits | None = None
    #: Bytes of a request's body; None without a limit.
    max_body: int | None = None
    health: HealthCheck | None = None

    def matches(self, path: str) -> bool:
        """Return whether *path*, normalised and without query, is the prefix or below it."""
        return path == self.prefix or path.startswith(self.prefix if self.prefix.endswith("/") else self.prefix + "/")


def parse_route(text: str) -> Route:
    """Read ``PREFIX=[http://]HOST:PORT[,…]``.

    Raises:
        ValueError: saying what was expected.
    """
    prefix, equals, listed = text.partition("=")
    if not equals or not prefix.startswith("/"):
        raise ValueError(f"expected /PREFIX=HOST:PORT,…, for example /=catalog-1.example.com:8443; got {text!r}")
    return Route(prefix, tuple(map(parse_target, listed.split(","))))


def find(routes: Sequence[Route], path: str) -> Route | None:
    """Return the route with the longest prefix that matches."""
    return max((route for route in routes if route.matches(path)), key=lambda route: len(route.prefix), default=None)
