"""One origin server, as a route names it."""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Target:
    """Host and port of an origin."""

    host: str
    port: int
    #: Whether connections to it use (mutual) TLS.
    tls: bool = True

    def __str__(self) -> str:
        return f"{'' if self.tls else 'http://'}{self.host}:{self.port}"

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

    @cached_property
    def authority(self) -> bytes:
        """What Host says when the client named none."""
        return f"{self.host}:{self.port}".encode()


def parse_target(text: str) -> Target:
    """Read ``[http://]HOST:PORT``.

    Raises:
        ValueError: saying what was expected.
    """
    host, colon, port = text.removeprefix("http://").rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"expected HOST:PORT or http://HOST:PORT, got {text!r}")
    return Target(host, int(port), not text.startswith("http://"))
