"""Name resolution while authoritative servers do not respond (Moura et al., IMC 2018; serve-stale, RFC 8767)."""

from theory.ttl import hit_rate


def answered_share(rate: float, ttl: float, seconds: float, *, serve_stale: bool = False) -> float:
    """Return the share of queries that a cache answers *seconds* into an outage: occ · (1 - t/T)⁺.

    Here occ is the probability that the record was cached when the outage began, `theory.ttl.hit_rate`.  With
    *serve_stale*, the share remains occ.

    Args:
        rate: queries per second at one cache.
        ttl: T, in seconds.  The shorter the TTL, the sooner the outage affects clients.
        seconds: t, the seconds since the last server failed.
        serve_stale: whether caches return expired records (RFC 8767).  Records that had expired before the outage and
            are still in memory are not counted.
    """
    if ttl <= 0:
        return 0.0
    occupied = hit_rate(rate, ttl)
    return occupied if serve_stale else occupied * max(0.0, 1 - seconds / ttl)


def mean_failed_share(rate: float, ttl: float, duration: float) -> float:
    """Return the share of queries that fail during an outage of *duration* seconds, without serve-stale."""
    covered = min(duration, ttl)
    answered = hit_rate(rate, ttl) * (covered - covered**2 / (2 * ttl)) if ttl > 0 else 0.0
    return 1 - answered / duration


def resolved_share(loss: float, tries: int) -> float:
    """Return the share of queries that succeed within *tries* attempts: 1 - p^r.

    Each attempt is lost with probability p, *loss*; r is *tries*.
    """
    return 1 - loss**tries


def resolved_share_of_servers(down: int, servers: int, tries: int) -> float:
    """Return the share of queries that succeed if *down* of *servers* are down and each try uses another server."""
    if tries > down:
        return 1.0
    failed = 1.0
    for number in range(tries):
        failed *= (down - number) / (servers - number)
    return 1 - failed
