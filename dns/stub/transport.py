"""How a stub reaches its servers: UDP, TCP or TLS, and what it demands of a server's certificate (RFC 8310)."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["udp", "tcp", "tls"]
#: ALPN identifier of DNS over TLS (RFC 7858 section 6).
ALPN = "dot"
#: Usual port of each kind.
PORTS: dict[Kind, int] = {"udp": 53, "tcp": 53, "tls": 853}
#: Queries over TLS are padded to a multiple of this size, in bytes (RFC 8467 section 4.1).
BLOCK = 128


@dataclass(frozen=True, slots=True)
class Transport:
    """How a stub reaches its servers."""

    #: Over UDP, a truncated reply is asked for again over TCP.
    kind: Kind = "udp"
    #: TLS context.
    context: ssl.SSLContext | None = None
    #: Name that a server's certificate must have (its authentication domain name), and SNI; empty: none is demanded.
    name: str = ""
    #: Whether a server to which TLS fails is asked over UDP instead.
    falls_back: bool = False
    #: Whether queries are padded.
    pads: bool = False


UDP, TCP = Transport("udp"), Transport("tcp")


def strict(name: str, trust: Path | None = None, *, pads: bool = True) -> Transport:
    """Return TLS to a server that proves to be *name*; without proof no query is sent (RFC 8310 section 5).

    Args:
        name: host name of the server.
        trust: root certificates (PEM); None uses the system's.
        pads: whether queries are padded, which hides their length.

    Raises:
        OSError: *trust* cannot be read, or contains no certificates (`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=trust)
    context.set_alpn_protocols([ALPN])
    return Transport("tls", context, name, pads=pads)


def opportunistic(*, pads: bool = True) -> Transport:
    """Return TLS to whoever answers, or UDP if no one does: it protects from listeners only (RFC 8310 section 5)."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    return Transport("tls", context, falls_back=True, pads=pads)
