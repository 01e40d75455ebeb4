"""The keep-alive race: a request sent on an idle connection that the server is just closing (RFC 9112 section 9.3.1).

The server closes after Ts seconds of silence; its FIN needs half a round trip, and so does the request.  A request that
the client sends in the last RTT before the FIN arrives meets a closed socket, and a reset comes back.
"""

import math


def races(gap: float, timeout: float, rtt: float) -> bool:
    """Return whether a request sent *gap* seconds after the last answer meets a connection being closed.

    Args:
        gap: seconds of silence as the client saw them.
        timeout: seconds after which the server closes an idle connection.
        rtt: seconds of a round trip.
    """
    return timeout - rtt < gap < timeout


def race_share(rate: float, timeout: float, rtt: float) -> float:
    """Return the share of requests that meet the race: e^(-λTs) · (e^(λRTT) - 1), for Poisson requests.

    Args:
        rate: requests per second on one connection.
        timeout: seconds after which the server closes an idle connection.
        rtt: seconds of a round trip; at most *timeout*.
    """
    return math.exp(-rate * timeout) * math.expm1(rate * min(rtt, timeout))


def reused_share(rate: float, timeout: float, rtt: float = 0.0) -> float:
    """Return the share of requests that find their connection open and well: 1 - e^(-λ(Ts - RTT))."""
    return -math.expm1(-rate * max(0.0, timeout - rtt))


def opened_share(rate: float, timeout: float) -> float:
    """Return the share of requests that find their connection retired after *timeout* seconds, whoever did it: e^(-λT)."""
    return math.exp(-rate * timeout)


def answer_s(gap: float, timeout: float, rtt: float) -> float:
    """Return the seconds from the wish to the answer of a request that is sent again at once when it meets the race.

    One round trip on an open connection, two on a new one; a request that races learns of it only when the FIN arrives.
    """
    if races(gap, timeout, rtt):
        return timeout - gap + 2 * rtt
    return rtt if gap < timeout else 2 * rtt


def safe_client_timeout(timeout: float, rtt: float) -> float:
    """Return the seconds of idleness after which a client must not reuse a connection, so that no race is possible."""
    return max(0.0, timeout - rtt)
