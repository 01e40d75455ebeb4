"""Which damage passes which check: TCP's 16-bit sum (RFC 1071), a CRC-32, TLS's authentication tag (RFC 8446).

The sum does not know the order of words (Stone and Partridge 2000, "When the CRC and TCP checksum disagree").
"""

import math
from typing import Literal

#: Kinds of damage, as `wan` injects them.
Damage = Literal["bitflip", "swap16", "plusminus", "random"]
Check = Literal["checksum", "crc32", "tag"]
#: Octets in a kilobyte and a gigabyte as the seed counts them.
KB, GB, TB = 10**3, 10**9, 10**12
#: Packets per damaged packet that passes TCP's checksum: Stone and Partridge's two ends, which the seed quotes.
PACKETS_PER_ERROR = (16_000_000, 10_000_000_000)
#: What a check of so many bits lets pass of random damage.
_BITS: dict[Check, int] = {"checksum": 16, "crc32": 32, "tag": 128}


def passes(damage: Damage, check: Check) -> float:
    """Return the probability that a damaged packet passes a check.

    A flipped bit changes every sum and every CRC; swapped words, and words that grow and shrink alike, change no sum, but
    are random to a CRC (two bursts too far apart for its guarantee) and to a tag.  The sum in ones' complement has one
    zero too many, so random damage passes it once in 65,535 times.
    """
    if check == "checksum":
        return {"bitflip": 0.0, "swap16": 1.0, "plusminus": 1.0, "random": 1 / 65_535}[damage]
    if check == "crc32" and damage == "bitflip":
        return 0.0
    return math.ldexp(1, -_BITS[check])


def octets_per_error(packets_per_error: float, packet: int = KB) -> float:
    """Return the octets sent per wrong packet that is delivered: 16 GB to 10 TB for the seed's numbers."""
    return packets_per_error * packet


def wrong_packets(packets: float, share: float, damage: Damage, check: Check = "checksum") -> float:
    """Return how many wrong packets an application gets when a *share* of *packets* is damaged on the way."""
    return packets * share * passes(damage, check)


def sends_per_segment(share: float, damage: Damage) -> float:
    """Return how often TCP sends a segment until it passes the checksum, the first time included."""
    return 1 / (1 - share * (1 - passes(damage, "checksum")))


def connection_survives(share: float, segments: int, damage: Damage) -> float:
    """Return the probability that a TLS connection survives *segments*: what TCP lets pass wrong, its tag does not.

    A bad record ends the connection (RFC 8446 section 5.2); what the checksum catches is sent again.
    """
    hits = sends_per_segment(share, damage) * share * passes(damage, "checksum")
    return (1 - hits) ** segments
