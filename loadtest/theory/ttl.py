"""What a TTL costs and buys (Jung, Berger, Balakrishnan 2003): one cache, Poisson questions of λ per second.

A long one delays changes, a short one loads servers and slows answers; `cost` puts both on one axis.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

#: How a cache turns T into a lifetime: exact; or by a clock of whole seconds, until T of them have begun ("down": between
#: T - 1 and T), or until T have passed ("up": between T and T + 1).
Rounding = Literal["exact", "down", "up"]
_MORE: dict[Rounding, float] = {"exact": 0.0, "down": -0.5, "up": 0.5}


def lifetime(ttl: float, rounding: Rounding = "exact") -> float:
    """Return the mean seconds that a cache keeps a record of *ttl* seconds; only the mean enters the hit rate."""
    return max(0.0, ttl + _MORE[rounding]) if ttl else 0.0


def hit_rate(rate: float, ttl: float) -> float:
    """Return the share of questions answered from the cache: λT / (1 + λT); also the share of caches that hold it."""
    return rate * ttl / (1 + rate * ttl)


def upstream_rate(rate: float, ttl: float) -> float:
    """Return questions per second that reach the authoritative server: λ / (1 + λT)."""
    return rate / (1 + rate * ttl)


def hit_rate_behind(rate: float, ttl: float, others: float) -> float:
    """Return the hit rate of a client's cache behind a resolver that *others* ask too; the resolver counts TTLs down.

    Both caches expire together, so a client that asks at once gets nearly all of T, one that waits a random rest.  Its
    mean lifetime f follows from where its next question (exponential, λ) falls in the resolver's alternation of T seconds
    full and an exponential time empty.

    Args:
        rate: questions per second of this client.
        ttl: seconds, as the authoritative server says.
        others: questions per second of everybody else behind the resolver.
    """
    if not rate or not ttl:
        return 0.0
    kept = -math.expm1(-rate * ttl)
    other = others / (rate + others)
    mean = ((1 - other) * ttl + other * (ttl - kept / rate)) / (1 - other * (1 - kept))
    return hit_rate(rate, mean)


def response_ms(rate: float, ttl: float, hit_ms: float, miss_ms: float) -> float:
    """Return the mean milliseconds of an answer."""
    hits = hit_rate(rate, ttl)
    return hits * hit_ms + (1 - hits) * miss_ms


def stale_share(rate: float, ttl: float, seconds: float) -> float:
    """Return the share of caches that still hold the old record *seconds* after it changed: occ · (1 - t/T)⁺."""
    return hit_rate(rate, ttl) * max(0.0, 1 - seconds / ttl) if ttl > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Cost:
    """What one TTL costs, to the servers and to whoever changes the record."""

    #: Questions per second at the authoritative servers.
    upstream_rate: float
    #: Mean milliseconds of an answer.
    response_ms: float
    #: Mean seconds for which a cache gives the old answer after a change: occ · T/2.
    stale_s: float
    #: Seconds after which no cache does.
    stale_at_most_s: float


def cost(rate: float, ttl: float, *, caches: int = 1, hit_ms: float = 0.0, miss_ms: float = 0.0) -> Cost:
    """Return both costs of a TTL of *ttl* seconds for so many *caches*, each asked *rate* times per second."""
    return Cost(
        upstream_rate=caches * upstream_rate(rate, ttl),
        response_ms=response_ms(rate, ttl, hit_ms, miss_ms),
        stale_s=hit_rate(rate, ttl) * ttl / 2,
        stale_at_most_s=ttl,
    )


def stale_clients(classes: Iterable[tuple[float, float]], seconds: float, never: float = 0.0) -> float:
    """Return the share of clients that still use the old address: Σ wᵢ(1 - t/Tᵢ)⁺ + w∞ (`ttl-ignored`).

    Args:
        classes: weight and seconds of each kind of client: its TTL, the minimum that it clamps to, or how long it keeps
            a connection.
        seconds: since the change.
        never: weight of those that look the name up once and never again.
    """
    return never + sum(weight * max(0.0, 1 - seconds / ttl) for weight, ttl in classes if ttl > 0)
