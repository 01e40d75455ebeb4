"""Effects of a TTL on one cache with λ Poisson queries per second (Jung, Berger, Balakrishnan 2003).

A long TTL delays changes; a short TTL increases server load and response times.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

#: Conversion of a TTL of T seconds to a cache lifetime: exact, or with a clock of whole seconds that rounds down
#: (between T - 1 and T seconds) or up (between T and T + 1 seconds).
Rounding = Literal["exact", "down", "up"]
_MORE: dict[Rounding, float] = {"exact": 0.0, "down": -0.5, "up": 0.5}


def lifetime(ttl: float, rounding: Rounding = "exact") -> float:
    """Return the mean seconds for which a cache keeps a record; the hit rate depends only on the mean."""
    return max(0.0, ttl + _MORE[rounding]) if ttl else 0.0


def hit_rate(rate: float, ttl: float) -> float:
    """Return the share of queries that a cache answers: λT / (1 + λT).

    This is also the probability that the cache holds the record.
    """
    return rate * ttl / (1 + rate * ttl)


def upstream_rate(rate: float, ttl: float) -> float:
    """Return the rate of queries that reach the authoritative server, per second: λ / (1 + λT)."""
    return rate / (1 + rate * ttl)


def hit_rate_behind(rate: float, ttl: float, others: float) -> float:
    """Return the hit rate of a client's cache behind a shared resolver, which returns the remaining TTL.

    The client's record expires together with the resolver's record, so its lifetime is the remaining TTL at the time of
    the query.  The resolver alternates between T seconds with the record and an exponential time without it; the mean
    lifetime follows from the phase in which the client's next query (exponential, λ) arrives.

    Args:
        rate: λ, queries per second of this client.
        ttl: T, the TTL in seconds that the authoritative server publishes.
        others: queries per second of all other clients of the resolver.
    """
    if not rate or not ttl:
        return 0.0
    kept = -math.expm1(-rate * ttl)
    other = others / (rate + others)
    mean = ((1 - other) * ttl + other * (ttl - kept / rate)) / (1 - other * (1 - kept))
    return hit_rate(rate, mean)


def response_ms(rate: float, ttl: float, hit_ms: float, miss_ms: float) -> float:
    """Return the mean response time in milliseconds, for given response times of a cache hit and a miss."""
    hits = hit_rate(rate, ttl)
    return hits * hit_ms + (1 - hits) * miss_ms


def stale_share(rate: float, ttl: float, seconds: float) -> float:
    """Return the share of caches that still hold the old record *seconds* after a change: occ · (1 - t/T)⁺.

    Here occ is the probability that the record was cached when it changed, `hit_rate`.
    """
    return hit_rate(rate, ttl) * max(0.0, 1 - seconds / ttl) if ttl > 0 else 0.0


def old_share(seconds: float, ttl: float, hold: float, rate: float, others: float) -> float:
    """Return the share of a client's requests that go to the old address *seconds* after a change.

    Two delays add up.  First, the resolver holds the record with probability occ = μT/(1 + μT).  The record then
    remains for another R seconds, uniform between 0 and T, during which all clients that query get the old address.
    Second, a client queries again only at its first request after it has held an answer (or a connection) for H
    seconds.  At the time of the change, the client holds an answer with probability held = λH/(1 + λH); the age of this
    answer is uniform and independent of R.

    A request at time t therefore goes to the old address if t < R, or if the client still holds an answer that it
    received before R: held · (1 - (t - R)/H)⁺, averaged over R. The last client switches after T + H, not after T.
    A client that honours the TTL has H = 0: its cache expires together with the resolver's cache and adds no delay.

    Args:
        seconds: t, the seconds since the change.
        ttl: T, in seconds.
        hold: H, the seconds for which the client keeps a connection, or an answer regardless of its TTL; may be
            infinite.
        rate: λ, requests per second of the client.
        others: μ, queries per second for this name that reach the resolver.
    """
    full = hit_rate(others, ttl)
    fresh = max(0.0, 1 - seconds / ttl) if ttl else 0.0
    if math.isinf(hold):
        return 1.0
    if hold <= 0:
        return full * fresh
    held = hit_rate(rate, hold)

    def area(age: float) -> float:
        """Return the integral of 1 - a/H from 0 to *age*."""
        age = min(max(age, 0.0), hold)
        return age - age * age / (2 * hold)

    behind = (area(seconds) - area(seconds - ttl)) / ttl if ttl else 0.0
    empty = held * max(0.0, 1 - seconds / hold)
    return full * (fresh + held * behind) + (1 - full) * empty


def old_seconds(ttl: float, hold: float, rate: float, others: float) -> float:
    """Return the mean time on the old address in seconds, the integral of `old_share`: occ · T/2 + held · H/2."""
    return hit_rate(others, ttl) * ttl / 2 + hit_rate(rate, hold) * hold / 2


def wrong_share(rate: float, ttl: float, every: float) -> float:
    """Return the share of requests that get the old answer if the record changes once every *every* (≥ T) seconds."""
    return hit_rate(rate, ttl) * ttl / (2 * every)


def best(rate: float, every: float) -> float:
    """Return the TTL in seconds that minimises cache misses plus old answers, both as shares of all requests.

    The sum 1/(1 + λT) + λT²/(2C(1 + λT)) is minimal if λT²/2 + T = C, that is, at T = (√(1 + 2λC) - 1)/λ. If an old
    answer is k times as bad as a miss, replace C with C/k.

    Args:
        rate: λ, requests per second.
        every: C, the seconds between two changes.
    """
    return (math.sqrt(1 + 2 * rate * every) - 1) / rate


@dataclass(frozen=True, slots=True)
class Cost:
    """Effects of one TTL on server load, response time, and the delay of changes."""

    #: Queries per second that reach the authoritative servers.
    upstream_rate: float
    #: Mean response time in milliseconds.
    response_ms: float
    #: Mean time in seconds for which a cache returns the old answer after a change: half the TTL, times the
    #: probability that the cache holds the record.
    stale_s: float
    #: Seconds after a change at which the last cache stops returning the old answer.
    stale_at_most_s: float


def cost(rate: float, ttl: float, *, caches: int = 1, hit_ms: float = 0.0, miss_ms: float = 0.0) -> Cost:
    """Return the effects of a TTL of *ttl* seconds for *caches* caches that each receive *rate* queries per second."""
    return Cost(
        upstream_rate=caches * upstream_rate(rate, ttl),
        response_ms=response_ms(rate, ttl, hit_ms, miss_ms),
        stale_s=hit_rate(rate, ttl) * ttl / 2,
        stale_at_most_s=ttl,
    )


def stale_clients(classes: Iterable[tuple[float, float]], seconds: float, never: float = 0.0) -> float:
    """Return the share of clients that still use the old address: Σ wᵢ(1 - t/Tᵢ)⁺ + w∞.

    Args:
        classes: (weight, seconds) of each kind of client.  The seconds are the TTL, the client's own minimum, or the
            maximum age of its connections.
        seconds: t, the seconds since the change.
        never: w∞, the weight of clients that look up the name only once.
    """
    return never + sum(weight * max(0.0, 1 - seconds / ttl) for weight, ttl in classes if ttl > 0)
