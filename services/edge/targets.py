"""Address of one origin server, as routes specify it."""

import re
from dataclasses import dataclass
from functools import cached_property

#: A host name or an IPv4 address.
_HOST = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Target:
    """Host, port and transport (TLS or plain) of an origin server."""

    host: str
    port: int
    #: Whether connections to this origin use mutual TLS.
    tls: bool = True

    def __str__(self) -> str:
        return f"{'' if self.tls else 'http://'}{self.host}:{self.port}"

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Hash of the fields, cached because each request looks up its target several times."""
        return hash((self.host, self.port, self.tls))

    @cached_property
    def name(self) -> bytes:
        """The target as text, for the Server-Timing header field."""
        return str(self).encode()

    @cached_property
    def authority(self) -> bytes:
        """``HOST:PORT``, sent as Host if the client sent no Host."""
        return f"{self.host}:{self.port}".encode()


def parse_target(text: str) -> Target:
    """Parse ``[http://]HOST:PORT``.

    Raises:
        ValueError: *text* has another form, or the port is out of range.
    """
    host, colon, port = text.removeprefix("http://").rpartition(":")
    if not colon or not _HOST.fullmatch(host) or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"expected HOST:PORT or http://HOST:PORT, got {text!r}")
    return Target(host, int(port), not text.startswith("http://"))
