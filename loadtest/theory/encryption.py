"""CPU cost of TLS: asymmetric cryptography once per connection, symmetric cryptography for every byte (RFC 8446).

The CPU times of handshake, cipher and copying are not modelled; the caller measures them and passes them in.
"""

#: Number of full-size records that may be encrypted with one AES-GCM key, and bytes per record (RFC 8446 section 5.5).
#: ChaCha20-Poly1305 has no such limit.
AES_GCM_RECORDS, RECORD = 2**24.5, 1 << 14


def per_byte_s(cipher_s: float, copying_s: float, record_s: float = 0.0, record: int = RECORD) -> float:
    """Return the CPU time of TLS per byte, in seconds: cipher, copying, and an equal share of the cost of its record.

    Args:
        cipher_s: CPU time of the cipher per byte, in seconds.
        copying_s: CPU time of the same path without encryption per byte, in seconds.
        record_s: CPU time per record for nonce, header and tag, independent of the record's length, in seconds.
        record: bytes per record.
    """
    return cipher_s + copying_s + record_s / record


def key_lasts_s(per_byte_s: float) -> float:
    """Return the CPU seconds for which one core can encrypt with one AES-GCM key before a key update is needed."""
    return AES_GCM_RECORDS * RECORD * per_byte_s


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
