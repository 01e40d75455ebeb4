"""The target of a load, and the record of one request: phases to the microsecond, cause of failure, certificate."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wireformat.http1 import get
from wireformat.tls import client_context

#: A new connection for each request; kept connections; new ones that resume a TLS session; bare TCP connections.
Kind = Literal["fresh", "pooled", "resumed", "tcp"]
KINDS: tuple[Kind, ...] = ("fresh", "pooled", "resumed", "tcp")
#: The side that closes first and so keeps TIME-WAIT; `abort` sends a reset, which leaves no TIME-WAIT.
Closes = Literal["client", "server", "abort"]
#: The phases of a request in order; `wait` is for the pool.
PHASES = ("wait", "dns", "connect", "tls", "first_byte", "receive")


class LoadError(Exception):
    """The cause of a lost request, in a few words for counting; or why a load cannot be started."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server and the path to request."""

    host: str
    port: int
    path: str
    #: Root certificates (PEM) that chains are verified against; None for the system's.
    trust: Path | None
    scheme: Literal["https", "http"] = "https"
    #: IPv4 address to connect to; None resolves `host`, honouring TTLs.
    address: str | None = None
    #: The only TLS version allowed, ``1.2`` or ``1.3``; None for either.
    version: str | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return a verifying TLS context; None for plain HTTP."""
        if self.scheme == "http":
            return None
        try:
            return client_context(self.trust, self.version)
        except ValueError as error:
            raise LoadError(str(error)) from None

    def head(self, *, close: bool, path: str | None = None) -> bytes:
        """Return an encoded request for *path* (the target's own by default); *close* adds ``Connection: close``."""
        lines = ["User-Agent: firstbyte-load", *(["Connection: close"] if close else [])]
        return get(self.host, path or self.path, *lines)


@dataclass(slots=True)
class Request:
    """One request: when it should have begun, began and ended (seconds on the load's clock), and its outcome.

    A phase that did not happen is None; `dns` is 0.0 if the answer was cached.
    """

    intended: float
    kind: str
    sent: float = 0.0
    done: float = 0.0
    #: Cause of the failure; empty on success.
    error: str = ""
    #: The phase in which it failed.
    failed_in: str = ""
    #: Serial number of the server's certificate.
    serial: str = ""
    status: int = 0
    #: Whether the TLS session was resumed, and whether the connection had been used before.
    resumed: bool = False
    reused: bool = False
    version: str = ""
    #: Source port; 0 before the connection exists.
    local_port: int = 0
    #: Bytes of TCP payload including TLS, and bytes of the response's body.
    bytes_sent: int = 0
    bytes_received: int = 0
    body_bytes: int = 0
    #: Seconds in each phase.
    wait: float | None = None
    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    receive: float | None = None

    @property
    def latency(self) -> float:
        """Seconds from the intended start to the end of the response."""
        return self.done - self.intended

    @property
    def service_time(self) -> float:
        """Seconds from the actual start to the end, as a closed loop would report."""
        return self.done - self.sent

    @property
    def lag(self) -> float:
        """Seconds by which the request was sent late."""
        return self.sent - self.intended

    def phases(self) -> dict[str, float]:
        """Return the seconds of each phase that happened."""
        return {name: value for name in PHASES if (value := getattr(self, name)) is not None}
