"""Duration of resolving a name (RFC 1034 section 5.3.3): one round trip to each name server that has to be asked."""

from collections.abc import Iterable


def cold_ms(client_to_resolver_ms: float, hops_ms: Iterable[float]) -> float:
    """Return the duration in milliseconds of a query for which the resolver asks one server after another.

    Args:
        client_to_resolver_ms: round-trip time between client and resolver.
        hops_ms: round-trip time between the resolver and each server that it asks; empty if the answer is cached.
    """
    return client_to_resolver_ms + sum(hops_ms)


def hops(zone: str, known: str = ".") -> int:
    """Return the number of servers that a resolver has to ask if every label is a zone cut.

    Args:
        zone: zone that contains the name, with a trailing dot: ``example.com.`` for www.example.com.
        known: closest enclosing zone whose servers are cached; the root's servers are always known.
    """
    return _labels(zone) - _labels(known) + 1


def mean_ms(client_hits: float, resolver_hits: float, client_to_resolver_ms: float, hops_ms: Iterable[float]) -> float:
    """Return the mean duration of a query in milliseconds, with a cache at the client and one at the resolver.

    Args:
        client_hits: share of queries that the client's own cache answers, in 0 ms.
        resolver_hits: share of the remaining queries that the resolver's cache answers.
        client_to_resolver_ms: round-trip time between client and resolver.
        hops_ms: round-trip times of an uncached query, as in `cold_ms`.
    """
    return (1 - client_hits) * (client_to_resolver_ms + (1 - resolver_hits) * sum(hops_ms))


def _labels(zone: str) -> int:
    return len([label for label in zone.split(".") if label])
