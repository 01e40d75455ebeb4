"""CPU cost of TLS: asymmetric cryptography once per connection, symmetric cryptography for every byte (RFC 8446).

The CPU times are not modelled; the caller measures them and passes them in.
"""


def handshake_share(size: float, handshake_s: float, per_byte_s: float) -> float:
    """Return the share of a connection's CPU time that the handshake takes.

    Args:
        size: application data per connection, in bytes.
        handshake_s: CPU time of one handshake, in seconds.
        per_byte_s: CPU time per byte for everything else, symmetric encryption included, in seconds.
    """
    return handshake_s / (handshake_s + size * per_byte_s)


def bytes_where_handshake_is(share: float, handshake_s: float, per_byte_s: float) -> float:
    """Return the number of bytes per connection at which the handshake takes *share* of the CPU time."""
    return handshake_s * (1 - share) / (share * per_byte_s)


def cores(handshakes: float, bytes_per_s: float, handshake_s: float, per_byte_s: float) -> float:
    """Return the number of CPU cores that the given handshakes and bytes per second keep busy."""
    return handshakes * handshake_s + bytes_per_s * per_byte_s
