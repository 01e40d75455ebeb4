"""Names while their authoritative servers do not answer (Moura et al., IMC 2018; serve-stale RFC 8767)."""

from theory.ttl import hit_rate


def answered_share(rate: float, ttl: float, seconds: float, *, serve_stale: bool = False) -> float:
    """Return the share of questions that a cache answers *seconds* into an outage: occ · (1 - t/T)⁺, or occ with stale.

    Args:
        rate: questions per second at one cache before.
        ttl: seconds.  The shorter it is, the sooner everybody notices.
        seconds: since the last server went.
        serve_stale: whether caches give expired answers (RFC 8767); an entry that had expired before the outage began
            and is still in memory comes on top.
    """
    if ttl <= 0:
        return 0.0
    occupied = hit_rate(rate, ttl)
    return occupied if serve_stale else occupied * max(0.0, 1 - seconds / ttl)


def mean_failed_share(rate: float, ttl: float, duration: float) -> float:
    """Return the share of questions that fail during an outage of *duration* seconds, without serve-stale."""
    covered = min(duration, ttl)
    answered = hit_rate(rate, ttl) * (covered - covered**2 / (2 * ttl)) if ttl > 0 else 0.0
    return 1 - answered / duration


def resolved_share(loss: float, tries: int) -> float:
    """Return the share of questions that get through a partial loss: 1 - p^r, for r tries in all."""
    return 1 - loss**tries


def resolved_share_of_servers(down: int, servers: int, tries: int) -> float:
    """Return the share that gets through when *down* of *servers* are dead and each try takes another one."""
    if tries > down:
        return 1.0
    failed = 1.0
    for number in range(tries):
        failed *= (down - number) / (servers - number)
    return 1 - failed
