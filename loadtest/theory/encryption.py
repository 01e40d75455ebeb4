"""CPU cost of encryption: asymmetric cryptography once per connection, symmetric cryptography per byte (RFC 8446).

The CPU times themselves are measured on the machine and passed in.
"""


def handshake_share(size: float, handshake_s: float, per_byte_s: float) -> float:
    """Return the handshake's share of the CPU time of a connection.

    Args:
        size: bytes of application data that the connection carries.
        handshake_s: CPU seconds of one handshake.
        per_byte_s: CPU seconds per byte for everything else, symmetric encryption included.
    """
    return handshake_s / (handshake_s + size * per_byte_s)


def bytes_where_handshake_is(share: float, handshake_s: float, per_byte_s: float) -> float:
    """Return the bytes per connection at which the handshake takes a *share* of the CPU time."""
    return handshake_s * (1 - share) / (share * per_byte_s)


def cores(handshakes: float, bytes_per_s: float, handshake_s: float, per_byte_s: float) -> float:
    """Return how many cores that many *handshakes* and bytes per second keep busy."""
    return handshakes * handshake_s + bytes_per_s * per_byte_s
