"""What encryption costs: asymmetric once per connection, symmetric per octet (RFC 8446; figures come from the machine)."""


def handshake_share(octets: float, handshake_s: float, per_octet_s: float) -> float:
    """Return the handshake's share of the CPU time for a connection that carries *octets*.

    Args:
        octets: of application data.
        handshake_s: CPU seconds of one handshake.
        per_octet_s: CPU seconds per octet of everything else, symmetric encryption included.
    """
    return handshake_s / (handshake_s + octets * per_octet_s)


def octets_where_handshake_is(share: float, handshake_s: float, per_octet_s: float) -> float:
    """Return the octets per connection at which the handshake is a *share* of the CPU time."""
    return handshake_s * (1 - share) / (share * per_octet_s)


def cores(handshakes: float, octets: float, handshake_s: float, per_octet_s: float) -> float:
    """Return the cores that so many *handshakes* and *octets* per second keep busy."""
    return handshakes * handshake_s + octets * per_octet_s
