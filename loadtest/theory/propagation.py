"""How long until every server, and then every client, has a change (RFC 1996 NOTIFY, RFC 1034 section 4.3.5, RFC 5936).

DNS is eventually consistent: first the secondaries lag behind the primary, then caches behind both.  Times are seconds.
"""


def transfer_s(rtt: float) -> float:
    """Return what a secondary needs once it looks: the SOA by UDP, then a connection and the zone (if it fits a window)."""
    return 3 * rtt


def notified_lag(rtt: float) -> float:
    """Return the lag of a secondary that NOTIFY reaches: half a round trip, then it looks."""
    return rtt / 2 + transfer_s(rtt)


def refresh_lag(rtt: float, refresh: float) -> float:
    """Return the mean lag of a secondary that only looks every *refresh* seconds; at worst twice the wait of this."""
    return refresh / 2 + transfer_s(rtt)


def mean_lag(rtt: float, refresh: float, notify_loss: float, retry: float | None = None, tries: int = 1) -> float:
    """Return the mean lag when each NOTIFY is lost with probability *notify_loss*.

    Args:
        rtt: between primary and secondary.
        refresh: the SOA's refresh interval.
        notify_loss: probability; NOTIFY is one datagram there and one back.
        retry: seconds between two tries of the primary (RFC 1996 section 3.6); None when it tries once.
        tries: how often it tries.
    """
    if retry is None:
        tries, retry = 1, 0.0
    lag = 0.0
    for number in range(tries):
        lag += notify_loss**number * (1 - notify_loss) * (number * retry + notified_lag(rtt))
    return lag + notify_loss**tries * refresh_lag(rtt, refresh)


def stale_share(seconds: float, ttl: float, lag: float, secondary_share: float = 0.5) -> float:
    """Return the share of busy caches with the old record, when a secondary goes on giving it for *lag* seconds.

    Caches expire evenly over T; who asks the secondary before it has the change takes the old record for another T.

    Args:
        seconds: since the change at the primary.
        ttl: seconds, not below *lag*.
        lag: seconds until the secondary has the change.
        secondary_share: share of questions that the secondary answers.
    """
    if lag > ttl:
        raise ValueError(f"expected a lag of at most the TTL of {ttl:g} s, got {lag:g}")
    first = max(0.0, 1 - seconds / ttl)
    again = max(0.0, min(seconds, lag) - max(0.0, seconds - ttl))
    return first + secondary_share * again / ttl
