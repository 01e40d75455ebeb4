"""Which corruption passes which check: TCP's 16-bit sum (RFC 1071), a CRC-32, TLS's authentication tag (RFC 8446).

A sum does not depend on the order of its words (Stone and Partridge 2000, "When the CRC and TCP checksum disagree").
"""

import math
from typing import Literal

#: Kinds of corruption, as `wan` injects them.
Damage = Literal["bitflip", "swap16", "plusminus", "random"]
Check = Literal["checksum", "crc32", "tag"]
#: Decimal units, as the textbook uses them.
KB, GB, TB = 10**3, 10**9, 10**12
#: Packets sent per corrupt packet that passes TCP's checksum: the two ends of Stone and Partridge's range.
PACKETS_PER_ERROR = (16_000_000, 10_000_000_000)
#: Width in bits of each check.
_BITS: dict[Check, int] = {"checksum": 16, "crc32": 32, "tag": 128}


def passes(damage: Damage, check: Check) -> float:
    """Return the probability that a corrupt packet passes a check.

    A flipped bit changes every sum and every CRC.  Swapped words, and two words of which one grows by what the other
    shrinks, keep the sum, but look random to a CRC (two bursts too far apart for its guarantee) and to a tag.  The
    ones' complement sum has two representations of zero, so random corruption passes it once in 65,535 times.
    """
    if check == "checksum":
        return {"bitflip": 0.0, "swap16": 1.0, "plusminus": 1.0, "random": 1 / 65_535}[damage]
    if check == "crc32" and damage == "bitflip":
        return 0.0
    return math.ldexp(1, -_BITS[check])


def bytes_per_error(packets_per_error: float, packet: int = KB) -> float:
    """Return the bytes sent per corrupt packet that is delivered: 16 GB to 10 TB for `PACKETS_PER_ERROR`."""
    return packets_per_error * packet


def wrong_packets(packets: float, share: float, damage: Damage, check: Check = "checksum") -> float:
    """Return how many corrupt packets reach the application if the path corrupts a *share* of *packets*."""
    return packets * share * passes(damage, check)


def sends_per_segment(share: float, damage: Damage) -> float:
    """Return how often TCP sends a segment, the first time included, until it passes the checksum."""
    return 1 / (1 - share * (1 - passes(damage, "checksum")))


def connection_survives(share: float, segments: int, damage: Damage) -> float:
    """Return the probability that a TLS connection survives *segments*.

    Corruption that the checksum catches is retransmitted; corruption that it misses fails the tag, and a bad record
    ends the connection (RFC 8446 section 5.2).
    """
    hits = sends_per_segment(share, damage) * share * passes(damage, "checksum")
    return (1 - hits) ** segments
