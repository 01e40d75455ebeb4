"""What resolving a name costs (RFC 1034 section 5.3.3): round trips to each server that had to be asked."""

from collections.abc import Iterable


def resolver_path_ms(rtt_ms: float) -> float:
    """Return milliseconds of a question that the resolver answers from its cache."""
    return rtt_ms


def cold_ms(client_to_resolver_ms: float, hops_ms: Iterable[float]) -> float:
    """Return milliseconds of a question that the resolver must follow from server to server.

    Args:
        client_to_resolver_ms: round-trip time between client and resolver.
        hops_ms: round-trip time between the resolver and each server that it asks, one after the other.
    """
    return client_to_resolver_ms + sum(hops_ms)


def hops(zone: str, known: str = ".") -> int:
    """Return how many servers a resolver asks, where every label is a zone cut.

    Args:
        zone: that holds the name, with its final dot: ``example.com.`` for www.example.com, itself for an apex.
        known: closest zone above whose servers are in the cache; the root's always are.
    """
    return _labels(zone) - _labels(known) + 1


def mean_ms(client_hits: float, resolver_hits: float, client_to_resolver_ms: float, hops_ms: Iterable[float]) -> float:
    """Return the mean over many questions, with a cache at either layer.

    Args:
        client_hits: share that the client's own cache answers, for nothing.
        resolver_hits: share of the rest that the resolver's answers.
        client_to_resolver_ms: round-trip time between them.
        hops_ms: as in `cold_ms`.
    """
    return (1 - client_hits) * (client_to_resolver_ms + (1 - resolver_hits) * sum(hops_ms))


def _labels(zone: str) -> int:
    return len([label for label in zone.split(".") if label])
