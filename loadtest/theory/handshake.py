"""Round trips of opening a connection (RFC 9293 section 3.5, RFC 8446 section 2, RFC 5246 section 7.3).

Time to first byte is a line in the round-trip time: its slope is a whole number of round trips, its intercept CPU.
"""

from typing import Literal

from theory.slow_start import rounds

#: plain is TCP without TLS.
Protocol = Literal["plain", "TLSv1.2", "TLSv1.3"]


def tls_round_trips(
    protocol: Protocol, *, resumed: bool = False, hello_retry: bool = False, server_flight: int = 0
) -> int:
    """Return round trips of the TLS handshake until the client may send its request.

    TLS 1.3 needs one, resumed or not (a PSK saves CPU and bytes; 0-RTT is not used here); TLS 1.2 needs two, one
    when resumed (RFC 5077).

    Args:
        protocol: what is spoken.
        resumed: whether a session is.
        hello_retry: whether the server asks for another group than the client guessed (RFC 8446 section 4.1.4); in
            TLS 1.2 the server chooses without a guess.
        server_flight: octets of the server's certificate flight; beyond the initial congestion window (a long chain
            of ML-DSA certificates) it takes more round trips.
    """
    if protocol == "plain":
        return 0
    more = 0 if resumed else max(0, rounds(server_flight) - 1)
    if protocol == "TLSv1.3":
        return 1 + hello_retry + more
    return (1 if resumed else 2) + more


def round_trips(protocol: Protocol, *, resumed: bool = False) -> int:
    """Return round trips from nothing to the first byte, 2 + h: the slope of its time against the RTT."""
    return 2 + tls_round_trips(protocol, resumed=resumed)


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
        server_ms: what the server takes, and the CPU of the handshake at both ends.
        names_ms: what resolving took before.
    """
    return names_ms + rtt_ms * round_trips(protocol, resumed=resumed) + server_ms


def close_ms() -> float:
    """Return milliseconds that close() takes for who closes first: none, the kernel says goodbye by itself."""
    return 0.0
