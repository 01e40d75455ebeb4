"""Time to resolve a name (RFC 1034 section 5.3.3): one round trip to each server that has to be asked."""

from collections.abc import Iterable


def cold_ms(client_to_resolver_ms: float, hops_ms: Iterable[float]) -> float:
    """Return milliseconds of a query that the resolver follows from server to server.

    Args:
        client_to_resolver_ms: round-trip time between client and resolver.
        hops_ms: round-trip time between the resolver and each server that it asks; empty if it knows the answer.
    """
    return client_to_resolver_ms + sum(hops_ms)


def hops(zone: str, known: str = ".") -> int:
    """Return how many servers a resolver asks if every label is a zone cut.

    Args:
        zone: zone that holds the name, with its final dot: ``example.com.`` for www.example.com.
        known: closest enclosing zone whose servers are cached; the root's always are.
    """
    return _labels(zone) - _labels(known) + 1


def mean_ms(client_hits: float, resolver_hits: float, client_to_resolver_ms: float, hops_ms: Iterable[float]) -> float:
    """Return the mean over many queries with a cache at both layers.

    Args:
        client_hits: share of queries that the client's own cache answers, at no cost.
        resolver_hits: share of the remaining ones that the resolver's cache answers.
        client_to_resolver_ms: round-trip time between them.
        hops_ms: as in `cold_ms`.
    """
    return (1 - client_hits) * (client_to_resolver_ms + (1 - resolver_hits) * sum(hops_ms))


def _labels(zone: str) -> int:
    return len([label for label in zone.split(".") if label])
