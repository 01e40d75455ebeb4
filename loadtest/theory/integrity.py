"""Detection of corruption by TCP's 16-bit checksum (RFC 1071), a CRC-32, and TLS's authentication tag (RFC 8446).

A sum does not depend on the order of its words (Stone and Partridge 2000, "When the CRC and TCP checksum disagree").
"""

import math
from typing import Literal

#: Kinds of packet corruption that `wan` can inject.
Damage = Literal["bitflip", "swap16", "plusminus", "random"]
Check = Literal["checksum", "crc32", "tag"]
#: Decimal units in bytes, as in the textbook.
KB, GB, TB = 10**3, 10**9, 10**12
#: Number of packets sent per corrupt packet that passes TCP's checksum: lower and upper end of Stone and Partridge's
#: range.
PACKETS_PER_ERROR = (16_000_000, 10_000_000_000)
#: Width of each check in bits.
_BITS: dict[Check, int] = {"checksum": 16, "crc32": 32, "tag": 128}


def passes(damage: Damage, check: Check) -> float:
    """Return the probability that a corrupt packet passes a check.

    A flipped bit changes every sum and every CRC. Swapping two words keeps the sum, and so does adding a number to one
    word and subtracting it from another.  For a CRC or a tag, these changes are equivalent to random corruption,
    because two bursts so far apart are outside the guarantee of a CRC. The ones' complement sum has two representations
    of zero, so random corruption passes it with probability 1/65,535.
    """
    if check == "checksum":
        return {"bitflip": 0.0, "swap16": 1.0, "plusminus": 1.0, "random": 1 / 65_535}[damage]
    if check == "crc32" and damage == "bitflip":
        return 0.0
    return math.ldexp(1, -_BITS[check])


def bytes_per_error(packets_per_error: float, packet: int = KB) -> float:
    """Return the bytes sent per corrupt packet delivered: from 16 GB to 10 TB for `PACKETS_PER_ERROR`."""
    return packets_per_error * packet


def wrong_packets(packets: float, share: float, damage: Damage, check: Check = "checksum") -> float:
    """Return the number of corrupt packets that reach the application if the path corrupts *share* of *packets*."""
    return packets * share * passes(damage, check)


def sends_per_segment(share: float, damage: Damage) -> float:
    """Return the mean number of transmissions of a segment, including the first, until it passes the checksum."""
    return 1 / (1 - share * (1 - passes(damage, "checksum")))


def connection_survives(share: float, segments: int, damage: Damage) -> float:
    """Return the probability that a TLS connection survives *segments* segments.

    TCP retransmits segments whose corruption the checksum detects.  Other corruption makes the TLS tag invalid, and an
    invalid record ends the connection (RFC 8446 section 5.2).
    """
    hits = sends_per_segment(share, damage) * share * passes(damage, "checksum")
    return (1 - hits) ** segments
