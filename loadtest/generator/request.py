"""The target of a load, and the record of one request: times of all phases, cause of failure, certificate."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wireformat.http1 import get
from wireformat.tls import client_context

#: Kind of connection: a new one per request, a pooled one, a new one that resumes a TLS session, or TCP alone.
Kind = Literal["fresh", "pooled", "resumed", "tcp"]
KINDS: tuple[Kind, ...] = ("fresh", "pooled", "resumed", "tcp")
#: The side that closes first and therefore enters TIME-WAIT; "abort" sends a reset, which leaves no side in TIME-WAIT.
Closes = Literal["client", "server", "abort"]
#: The phases of a request, in order; `wait` is the time until a connection of the pool is available.
PHASES = ("wait", "dns", "connect", "tls", "first_byte", "receive")


class LoadError(Exception):
    """A request is lost, or a load cannot be started; the message is a short cause, used to group losses."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server, with the path to request and the TLS settings to use."""

    host: str
    port: int
    path: str
    #: PEM file with the root certificates for chain verification; None: the system's root certificates.
    trust: Path | None
    scheme: Literal["https", "http"] = "https"
    #: IPv4 address to connect to; None: resolve `host` and cache the answer for its TTL.
    address: str | None = None
    #: The only TLS version allowed, ``1.2`` or ``1.3``; None: both are allowed.
    version: str | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return a TLS context that verifies certificate chains; None for plain HTTP.

        Raises:
            LoadError: the root certificates or the TLS version are invalid.
        """
        if self.scheme == "http":
            return None
        try:
            return client_context(self.trust, self.version)
        except ValueError as error:
            raise LoadError(str(error)) from None

    def head(self, *, close: bool, path: str | None = None) -> bytes:
        """Return an encoded GET request.

        Args:
            close: add the header field ``Connection: close``.
            path: path to request; None: the target's own path.
        """
        lines = ["User-Agent: firstbyte-load", *(["Connection: close"] if close else [])]
        return get(self.host, path or self.path, *lines)


@dataclass(slots=True)
class Request:
    """One request: its intended start, actual start and end (in seconds on the load's clock), and its outcome.

    A phase that did not take place is None; `dns` is 0.0 if the answer was cached.
    """

    intended: float
    kind: str
    sent: float = 0.0
    done: float = 0.0
    #: Cause of the failure; "" if the request succeeded.
    error: str = ""
    #: Phase in which the request failed; "" if it succeeded.
    failed_in: str = ""
    #: Serial number of the server's certificate, in hexadecimal.
    serial: str = ""
    status: int = 0
    #: Whether the TLS session was resumed.
    resumed: bool = False
    #: Whether the connection had been used before.
    reused: bool = False
    version: str = ""
    #: Source port; 0 until the connection is established.
    local_port: int = 0
    #: Number of bytes sent over TCP, including TLS.
    bytes_sent: int = 0
    #: Number of bytes received over TCP, including TLS.
    bytes_received: int = 0
    #: Size of the response body in bytes.
    body_bytes: int = 0
    #: Duration of each phase in seconds.
    wait: float | None = None
    dns: float | None = None
    connect: float | None = None
    tls: float | None = None
    first_byte: float | None = None
    receive: float | None = None

    @property
    def latency(self) -> float:
        """Time from the intended start to the end of the response, in seconds."""
        return self.done - self.intended

    @property
    def service_time(self) -> float:
        """Time from the actual start to the end of the response, in seconds, as a closed loop would report it."""
        return self.done - self.sent

    @property
    def lag(self) -> float:
        """Time from the intended start to the actual start, in seconds."""
        return self.sent - self.intended

    def phases(self) -> dict[str, float]:
        """Return the duration in seconds of each phase that took place, keyed by name."""
        return {name: value for name in PHASES if (value := getattr(self, name)) is not None}
