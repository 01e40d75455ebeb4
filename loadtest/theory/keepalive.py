"""The keep-alive race: a request on an idle connection that the server is closing (RFC 9112 sections 9.3.1 and 9.5).

The server closes after Ts seconds of silence.  Its FIN and the request each take half a round trip.  A request that is
sent during the last RTT before the FIN arrives therefore reaches a closed socket, and the server replies with a reset.
"""

import math


def races(gap: float, timeout: float, rtt: float) -> bool:
    """Return whether a request sent *gap* seconds after the last response loses the race against the server's close.

    Args:
        gap: seconds without traffic, measured at the client.
        timeout: idle time-out of the server in seconds.
        rtt: round-trip time in seconds.
    """
    return timeout - rtt < gap < timeout


def race_share(rate: float, timeout: float, rtt: float) -> float:
    """Return the share of Poisson requests that lose the race: e^(-λTs) · (e^(λRTT) - 1).

    Args:
        rate: λ, requests per second on one connection.
        timeout: Ts, the idle time-out of the server in seconds.
        rtt: round-trip time in seconds, at most *timeout*.
    """
    return math.exp(-rate * timeout) * math.expm1(rate * min(rtt, timeout))


def reused_share(rate: float, timeout: float, rtt: float = 0.0) -> float:
    """Return the share of requests that successfully reuse an open connection: 1 - e^(-λ(Ts - RTT))."""
    return -math.expm1(-rate * max(0.0, timeout - rtt))


def opened_share(rate: float, timeout: float) -> float:
    """Return the share of requests that need a new connection: e^(-λT), with T = *timeout*."""
    return math.exp(-rate * timeout)


def answer_s(gap: float, timeout: float, rtt: float) -> float:
    """Return the expected latency in seconds of a request that is retried at once after losing the race.

    A request takes one round trip on an open connection and two on a new one.  When a request loses the race, the
    client detects it when the FIN arrives, and then needs a new connection.
    """
    if races(gap, timeout, rtt):
        return timeout - gap + 2 * rtt
    return rtt if gap < timeout else 2 * rtt


def safe_client_timeout(timeout: float, rtt: float) -> float:
    """Return the longest idle time-out in seconds with which the client always closes before the server."""
    return max(0.0, timeout - rtt)
