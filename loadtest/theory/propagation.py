"""Time until a changed record has reached all servers and caches (RFC 1034 section 4.3.5, RFC 1996, RFC 5936).

DNS is eventually consistent: secondaries lag behind the primary, and caches lag behind both.  Times are in seconds.
"""

import math
from collections.abc import Sequence


def transfer_s(rtt: float) -> float:
    """Return the seconds to transfer a zone that fits into one window: SOA over UDP, TCP connect, transfer."""
    return 3 * rtt


def notified_lag(rtt: float, *, with_serial: bool = False) -> float:
    """Return the lag of a secondary that receives NOTIFY: half a round trip, then the zone transfer.

    If the NOTIFY carries the new serial number (*with_serial*, RFC 1996 section 3.7), the SOA query is not needed.
    """
    return rtt / 2 + transfer_s(rtt) - (rtt if with_serial else 0.0)


def refresh_lag(rtt: float, refresh: float) -> float:
    """Return the mean lag of a secondary that only polls every *refresh* seconds.

    On average, the secondary waits half of *refresh* before it polls; the maximum wait is *refresh*.
    """
    return polled_lag(rtt, refresh / 2)


def polled_lag(rtt: float, wait: float) -> float:
    """Return the lag in seconds of a secondary that receives no NOTIFY and polls *wait* seconds after the change."""
    return wait + transfer_s(rtt)


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


def retried_lag(rtt: float, lost: int, delay: float, retries: Sequence[float]) -> float:
    """Return the lag of a secondary that misses the first *lost* NOTIFY messages, each with the new serial number.

    Args:
        rtt: round-trip time between primary and secondary, in seconds.
        lost: number of NOTIFY messages lost; must be less than the length of *retries*.
        delay: seconds between a change and the first NOTIFY.
        retries: seconds between successive NOTIFY messages (RFC 1996 section 3.6).
    """
    return delay + sum(retries[:lost]) + notified_lag(rtt, with_serial=True)


def without_record_s(expires: float, gone: float, negative_ttl: float) -> float:
    """Return how many seconds a busy client is without a record that was deleted and then restored.

    When its cached record expires, the client receives a negative answer.  The answer is cached for *negative_ttl*
    (RFC 2308 section 5), even if the record is restored in the meantime.

    Args:
        expires: expiry of the client's cached record, in seconds since the deletion.
        gone: seconds between deletion and restoration.
        negative_ttl: lifetime of a negative answer, in seconds.
    """
    return negative_ttl * math.ceil((gone - expires) / negative_ttl) if expires < gone else 0.0


def share_without_record(seconds: float, gone: float, ttl: float, negative_ttl: float, steps: int = 1000) -> float:
    """Return the share of busy clients without the record *seconds* after its deletion; expiries are spread over T."""
    expiries = [ttl * (i + 0.5) / steps for i in range(steps)]
    return sum(0 <= seconds - each < without_record_s(each, gone, negative_ttl) for each in expiries) / steps
