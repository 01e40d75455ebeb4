"""Latency and size of a connection pool, which pays for connection set-up once, not for every request (Little 1961)."""

from theory.handshake import Protocol, time_to_first_byte_ms


def fresh_request_ms(rtt_ms: float, service_ms: float, protocol: Protocol = "TLSv1.3") -> float:
    """Return the duration of a request on a new connection in milliseconds: (2 + h) · RTT + S."""
    return time_to_first_byte_ms(rtt_ms, protocol, server_ms=service_ms)


def pooled_request_ms(rtt_ms: float, service_ms: float) -> float:
    """Return the duration of a request on an open connection in milliseconds: RTT + S."""
    return rtt_ms + service_ms


def connections_in_use(rate: float, rtt_ms: float, service_ms: float) -> float:
    """Return the mean number of connections in use by Little's law: L = λ · (RTT + S)."""
    return rate * (rtt_ms + service_ms) / 1000
