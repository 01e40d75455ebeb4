"""Routes from path prefixes to origins, such as ``/news=news.example.com:8443``; the longest matching prefix wins."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge.pool import Limits
from edge.targets import Target, parse_target
from edge.timeouts import Timeouts

#: Description of a valid prefix, for error messages.
MATCHABLE = 'a prefix such as "/news", without empty segments, "." and "..", as in normalised paths'


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Active health check of a route's origins: a periodic GET request; status 2xx or 3xx means healthy."""

    path: str
    #: Time between two checks, in seconds.
    interval: float
    #: Time-out of one check, in seconds.
    timeout: float


@dataclass(frozen=True, slots=True)
class Route:
    """A path prefix and the origins that serve it."""

    prefix: str
    targets: tuple[Target, ...]
    #: Relative share of requests for each target; empty for equal shares.
    weights: tuple[int, ...] = ()
    #: Time-outs for this route; None uses the edge's time-outs.
    timeouts: Timeouts | None = None
    limits: Limits | None = None
    #: Maximum size of a request body in bytes; None for no limit.
    max_body: int | None = None
    health: HealthCheck | None = None

    def matches(self, path: str) -> bool:
        """Return whether the route's prefix covers *path*, which is normalised and has no query."""
        return path == self.prefix or path.startswith(self.prefix if self.prefix.endswith("/") else self.prefix + "/")


def matchable(prefix: str) -> bool:
    """Return whether *prefix* can match at least one normalised path (see `edge.heads.normal_path`)."""
    segments = prefix.removesuffix("/").split("/")[1:]
    return prefix.startswith("/") and not {"", ".", ".."} & {*segments} and all("\0" < c <= "\xff" for c in prefix)


def parse_route(text: str) -> Route:
    """Parse ``PREFIX=[http://]HOST:PORT[,…]``.

    Raises:
        ValueError: *text* has another form, or its prefix can never match.
    """
    prefix, equals, listed = text.partition("=")
    if not equals or not prefix.startswith("/"):
        raise ValueError(f"expected /PREFIX=HOST:PORT,…, for example /=catalog-1.example.com:8443; got {text!r}")
    if not matchable(prefix):
        raise ValueError(f"expected {MATCHABLE}, got {prefix!r}")
    return Route(prefix, tuple(map(parse_target, listed.split(","))))


def find(routes: Sequence[Route], path: str) -> Route | None:
    """Return the matching route with the longest prefix, or None if no route matches."""
    return max((route for route in routes if route.matches(path)), key=lambda route: len(route.prefix), default=None)
