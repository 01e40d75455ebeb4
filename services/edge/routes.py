"""Which path goes to which origins: ``/news=news.example.com:8443``; the longest prefix wins."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Target:
    """One origin server."""

    host: str
    port: int
    #: Whether connections to it use (mutual) TLS.
    tls: bool = True

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """A target is looked up several times for each request."""
        return hash((self.host, self.port, self.tls))

    @cached_property
    def name(self) -> bytes:
        """What Server-Timing calls it."""
        return str(self).encode()

    def __str__(self) -> str:
        return f"{'' if self.tls else 'http://'}{self.host}:{self.port}"

    @property
    def authority(self) -> bytes:
        """What Host says when the client named none."""
        return f"{self.host}:{self.port}".encode()


@dataclass(frozen=True, slots=True)
class Route:
    """A path prefix and the origins behind it."""

    prefix: str
    targets: tuple[Target, ...]

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
    targets = []
    for each in listed.split(","):
        plain = each.startswith("http://")
        host, colon, port = each.removeprefix("http://").rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
            raise ValueError(f"expected HOST:PORT or http://HOST:PORT, got {each!r}")
        targets.append(Target(host, int(port), not plain))
    return Route(prefix, tuple(targets))


def find(routes: Sequence[Route], path: str) -> Route | None:
    """Return the route with the longest prefix that matches."""
    return max((route for route in routes if route.matches(path)), key=lambda route: len(route.prefix), default=None)
