"""What a pool of connections is worth (Little 1961): set-up is paid once instead of each time."""

from theory.handshake import Protocol, time_to_first_byte_ms


def fresh_request_ms(rtt_ms: float, service_ms: float, protocol: Protocol = "TLSv1.3") -> float:
    """Return milliseconds of a request on a connection opened for it: (2 + h) · RTT + S."""
    return time_to_first_byte_ms(rtt_ms, protocol, server_ms=service_ms)


def pooled_request_ms(rtt_ms: float, service_ms: float) -> float:
    """Return milliseconds of a request on a connection that is there: RTT + S."""
    return rtt_ms + service_ms


def connections_in_use(rate: float, rtt_ms: float, service_ms: float) -> float:
    """Return the mean number of connections in use, L = λ · (RTT + S)."""
    return rate * (rtt_ms + service_ms) / 1000
