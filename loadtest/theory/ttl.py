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


def old_share(seconds: float, ttl: float, hold: float, rate: float, others: float) -> float:
    """Return the share of a client's requests that go to the old address *seconds* after a change.

    Two ages add up.  The resolver's record, kept warm by *others*, is there with probability occ = μT/(1 + μT) and has a
    rest R left, anything from 0 to T alike; until then whoever asks hears the old address.  The client asks again only
    when it held its answer (or its connection) for H, at its next request: it holds one with probability λH/(1 + λH), of
    any age alike, independent of R since H does not depend on it.  So a request at t is an old one if t < R, or if what
    is held was taken before R: held · (1 - (t - R)/H)⁺, averaged over R.  The last client comes after T + H, not T.

    With H = 0, a client that honours the TTL: its cache ends with the resolver's, and adds nothing.

    Args:
        seconds: since the change.
        ttl: T, seconds.
        hold: H, seconds for which the client keeps an answer whatever its TTL, or a connection; infinite: for ever.
        rate: λ, requests per second of the client.
        others: μ, questions per second that reach the resolver for this name.
    """
    full = hit_rate(others, ttl)
    fresh = max(0.0, 1 - seconds / ttl) if ttl else 0.0
    if math.isinf(hold):
        return 1.0
    if hold <= 0:
        return full * fresh
    held = hit_rate(rate, hold)

    def area(age: float) -> float:
        """Return the integral of 1 - a/H over ages from 0 to *age*."""
        age = min(max(age, 0.0), hold)
        return age - age * age / (2 * hold)

    behind = (area(seconds) - area(seconds - ttl)) / ttl if ttl else 0.0
    empty = held * max(0.0, 1 - seconds / hold)
    return full * (fresh + held * behind) + (1 - full) * empty


def old_seconds(ttl: float, hold: float, rate: float, others: float) -> float:
    """Return the area below `old_share`: mean seconds of old answers, occ · T/2 and, if a change finds it held, H/2."""
    return hit_rate(others, ttl) * ttl / 2 + hit_rate(rate, hold) * hold / 2


def wrong_share(rate: float, ttl: float, every: float) -> float:
    """Return the share of requests that get the old answer, if the record changes once in *every* seconds (≥ T)."""
    return hit_rate(rate, ttl) * ttl / (2 * every)


def best(rate: float, every: float) -> float:
    """Return the TTL for which questions and old answers together are fewest, both as shares of all requests.

    The sum 1/(1 + λT) + λT²/(2C(1 + λT)) is least where λT²/2 + T = C, that is at T = (√(1 + 2λC) - 1)/λ.  Where an old
    answer is k times as bad as a question, C/k stands for C.

    Args:
        rate: λ, requests per second.
        every: C, seconds between two changes.
    """
    return (math.sqrt(1 + 2 * rate * every) - 1) / rate


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
