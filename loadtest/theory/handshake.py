"""Round trips of opening a connection (RFC 9293 section 3.5, RFC 8446 section 2, RFC 5246 section 7.3)."""

from typing import Literal

#: plain is TCP without TLS.
Protocol = Literal["plain", "TLSv1.2", "TLSv1.3"]


def tls_round_trips(protocol: Protocol, *, resumed: bool = False) -> int:
    """Return round trips of the TLS handshake until the client may send its request.

    TLS 1.3 needs one, resumed or not (a PSK saves CPU and bytes; 0-RTT is not used here); TLS 1.2 needs two, one
    when resumed (RFC 5077).
    """
    if protocol == "plain":
        return 0
    if protocol == "TLSv1.3":
        return 1
    return 1 if resumed else 2


def connect_ms(rtt_ms: float) -> float:
    """Return milliseconds until connect() returns: SYN there, SYN-ACK back."""
    return rtt_ms


def tls_ms(rtt_ms: float, protocol: Protocol, *, resumed: bool = False) -> float:
    """Return milliseconds of the TLS handshake, CPU not counted."""
    return rtt_ms * tls_round_trips(protocol, resumed=resumed)


def time_to_first_byte_ms(
    rtt_ms: float, protocol: Protocol, *, resumed: bool = False, server_ms: float = 0.0, names_ms: float = 0.0
) -> float:
    """Return RTT · (1 + h + 1) + S + names: connect, TLS, request; the slope against RTT is an integer.

    Args:
        rtt_ms: between client and server.
        protocol: what is spoken.
        resumed: whether a TLS session is.
        server_ms: what the server takes.
        names_ms: what resolving took before.
    """
    return names_ms + rtt_ms * (2 + tls_round_trips(protocol, resumed=resumed)) + server_ms


def close_ms() -> float:
    """Return milliseconds that close() takes for who closes first: none, the kernel says goodbye by itself."""
    return 0.0
