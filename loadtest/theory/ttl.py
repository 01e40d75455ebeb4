"""What a TTL costs and buys (Jung, Berger, Balakrishnan 2003): one cache, Poisson questions of λ per second."""


def hit_rate(rate: float, ttl: float) -> float:
    """Return the share of questions answered from the cache: λT / (1 + λT)."""
    return rate * ttl / (1 + rate * ttl)


def upstream_rate(rate: float, ttl: float) -> float:
    """Return questions per second that reach the authoritative server: λ / (1 + λT)."""
    return rate / (1 + rate * ttl)


def stale_share(rate: float, ttl: float, seconds: float) -> float:
    """Return the share of caches that still hold the old record *seconds* after it changed: occ · (1 − t/T)."""
    return hit_rate(rate, ttl) * max(0.0, 1 - seconds / ttl) if ttl > 0 else 0.0
