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
