"""Time until a changed record has reached all servers and caches (RFC 1034 section 4.3.5, RFC 1996, RFC 5936).

DNS is eventually consistent: secondaries lag behind the primary, and caches lag behind both.  Times are in seconds.
"""


def transfer_s(rtt: float) -> float:
    """Return the seconds to transfer a zone that fits into one window: SOA over UDP, TCP connect, transfer."""
    return 3 * rtt


def notified_lag(rtt: float) -> float:
    """Return the lag of a secondary that receives NOTIFY: half a round trip, then the zone transfer."""
    return rtt / 2 + transfer_s(rtt)


def refresh_lag(rtt: float, refresh: float) -> float:
    """Return the mean lag of a secondary that only polls every *refresh* seconds.

    On average, the secondary waits half of *refresh* before it polls; the maximum wait is *refresh*.
    """
    return refresh / 2 + transfer_s(rtt)


def mean_lag(rtt: float, refresh: float, notify_loss: float, retry: float | None = None, tries: int = 1) -> float:
    """Return the mean lag of a secondary if each NOTIFY is lost with probability *notify_loss*.

    Args:
        rtt: round-trip time between primary and secondary, in seconds.
        refresh: refresh interval in the SOA record, in seconds.
        notify_loss: probability that one NOTIFY (the datagram or its reply) is lost.
        retry: seconds between two attempts of the primary (RFC 1996 section 3.6); None for a single attempt.
        tries: maximum number of attempts.
    """
    if retry is None:
        tries, retry = 1, 0.0
    lag = 0.0
    for number in range(tries):
        lag += notify_loss**number * (1 - notify_loss) * (number * retry + notified_lag(rtt))
    return lag + notify_loss**tries * refresh_lag(rtt, refresh)


def stale_share(seconds: float, ttl: float, lag: float, secondary_share: float = 0.5) -> float:
    """Return the share of busy caches that hold the old record *seconds* after a change at the primary.

    The expiry times of the caches are spread evenly over T. A cache that expires and then queries the secondary before
    the secondary has the change keeps the old record for another T.

    Args:
        seconds: time since the change at the primary.
        ttl: T, in seconds, at least *lag*.
        lag: seconds until the secondary has the change.
        secondary_share: share of queries that the secondary answers.

    Raises:
        ValueError: *lag* exceeds *ttl*.
    """
    if lag > ttl:
        raise ValueError(f"expected a lag of at most the TTL of {ttl:g} s, got {lag:g}")
    first = max(0.0, 1 - seconds / ttl)
    again = max(0.0, min(seconds, lag) - max(0.0, seconds - ttl))
    return first + secondary_share * again / ttl
