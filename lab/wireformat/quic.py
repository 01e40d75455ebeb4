"""Types of the QUIC packets in a datagram, as an observer without keys can read them (RFC 9000 section 17).

Packets of the handshake have long headers with a type and a length, so that several can share a datagram.  A packet
with a short header has neither, so it is the last one in its datagram.
"""

#: Names of the long header types of QUIC version 1 (RFC 9000 table 5), and of the short header.
LONG, SHORT = ("Initial", "0-RTT", "Handshake", "Retry"), "1-RTT"


def packet_types(datagram: bytes) -> list[str]:
    """Return the types of the packets in *datagram*, in order; the list ends before the first malformed packet."""
    found: list[str] = []
    while datagram:
        first = datagram[0]
        if not first & 0x40:  # without the fixed bit, the rest is padding, or not QUIC version 1
            break
        if not first & 0x80:
            return [*found, SHORT]
        kind = LONG[first >> 4 & 3]
        try:
            end = _end(datagram, kind)
        except IndexError:
            break
        if end > len(datagram):
            break
        found.append(kind)
        datagram = datagram[end:]
    return found


def _end(packet: bytes, kind: str) -> int:
    """Return the length of a packet with a long header; raise `IndexError` if the header is incomplete."""
    at = 6 + packet[5]  # skip the first byte, the version, and the destination connection ID with its length
    at += 1 + packet[at]  # skip the source connection ID with its length
    if kind == "Retry":  # a Retry packet has no length field; it fills the datagram
        return len(packet)
    if kind == "Initial":
        length, at = _integer(packet, at)
        at += length  # skip the token
    length, at = _integer(packet, at)
    return at + length


def _integer(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at position *at*, and the position after it (RFC 9000 section 16)."""
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size
