"""Transports of a stub: UDP, TCP, HTTPS, or TLS with strict or opportunistic authentication (RFC 8310)."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["udp", "tcp", "tls", "https"]
#: ALPN identifiers of DNS over TLS (RFC 7858 section 6) and of HTTP/2 (RFC 9113 section 3.2).
ALPN, HTTP2 = "dot", "h2"
#: Default port of each transport protocol.
PORTS: dict[Kind, int] = {"udp": 53, "tcp": 53, "tls": 853, "https": 443}
#: Queries over TLS are padded to a multiple of this size, in bytes (RFC 8467 section 4.1).
BLOCK = 128


@dataclass(frozen=True, slots=True)
class Transport:
    """Transport protocol and TLS settings for a stub's servers."""

    #: Transport protocol; with ``udp``, truncated replies are retried over TCP.
    kind: Kind = "udp"
    #: TLS context; None without TLS.
    context: ssl.SSLContext | None = None
    #: Authentication domain name: the name required in the server's certificate, also sent as SNI; empty: no check.
    name: str = ""
    #: Whether to fall back to UDP if TLS fails.
    falls_back: bool = False
    #: Whether queries are padded (RFC 7830).
    pads: bool = False


UDP, TCP = Transport("udp"), Transport("tcp")


def strict(name: str, trust: Path | None = None, *, pads: bool = True) -> Transport:
    """Return TLS with strict authentication: no query is sent unless the certificate is valid for *name* (RFC 8310).

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


def https(name: str, trust: Path | None = None, *, pads: bool = True) -> Transport:
    """Return a transport for DNS over HTTPS (RFC 8484) that sends queries to ``https://NAME/dns-query``.

    The arguments, errors and authentication are the same as for `strict`.
    """
    context = ssl.create_default_context(cafile=trust)
    context.set_alpn_protocols([HTTP2])
    return Transport("https", context, name, pads=pads)


def opportunistic(*, pads: bool = True) -> Transport:
    """Return opportunistic TLS (RFC 8310 section 5): no authentication, and fallback to UDP if TLS fails."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    return Transport("tls", context, falls_back=True, pads=pads)
