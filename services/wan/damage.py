"""Corruption of the payload of one IPv4 packet, in ways that the transport checksum detects or misses.

The Internet checksum (RFC 1071) is a sum of 16-bit words.  It cannot tell that two words changed places, or that one
grew by as much as another shrank (Stone and Partridge 2000, "When the CRC and TCP checksum disagree").  So `swap16` and
`plusminus` always keep it valid, `bitflip` always breaks it, and `random` keeps it valid once in 65,535 times.

Only TCP and UDP payloads change.  Lengths, ports and the IPv4 header checksum stay valid, so the packet arrives, and it
is up to the receiver's transport, or TLS, to detect the corruption.  Sans-IO: the random generator is an argument.
"""

import random
from collections.abc import Callable, Iterator

from wireformat.ip import HeaderError, decode

#: Pairs of words tried before giving up: a payload of equal words has no pair to swap.
TRIES = 16
#: Bytes that `random` overwrites: a burst longer than the checksum, like that of faulty memory or a bad cable.
BURST = 16

#: Returns the corrupted packet, or None if it cannot be corrupted this way; the last argument is the k of `plusminus`.
Damage = Callable[[bytes, random.Random, int], bytes | None]


def payload(packet: bytes) -> tuple[int, int] | None:
    """Return the offsets at which the payload of a TCP segment or UDP datagram begins and ends.

    None if there is no payload, for fragments (the transport header may be in another packet), and for packets whose
    lengths contradict each other.
    """
    try:
        found = decode(packet)
    except HeaderError:
        return None
    if found.transport is None or found.ip.more_fragments or not found.payload:
        return None
    return found.payload_start, len(found.data)


def bitflip(packet: bytes, rng: random.Random, _: int = 0) -> bytes | None:
    """Flip one bit."""
    if (found := payload(packet)) is None:
        return None
    start, end = found
    damaged = bytearray(packet)
    damaged[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def swap16(packet: bytes, rng: random.Random, _: int = 0) -> bytes | None:
    """Swap two different, aligned 16-bit words."""
    for a, b in _pairs(packet, rng):
        first, second = packet[a : a + 2], packet[b : b + 2]
        if first != second:
            return _written(packet, (a, second), (b, first))
    return None


def plusminus(packet: bytes, rng: random.Random, k: int) -> bytes | None:
    """Add *k* to one aligned 16-bit word and subtract it from another, where neither overflows."""
    for a, b in _pairs(packet, rng):
        more, less = (int.from_bytes(packet[at : at + 2], "big") + by for at, by in ((a, k), (b, -k)))
        if more <= 0xFFFF and less >= 0:
            return _written(packet, (a, more.to_bytes(2, "big")), (b, less.to_bytes(2, "big")))
    return None


def burst(packet: bytes, rng: random.Random, _: int = 0) -> bytes | None:
    """Overwrite up to `BURST` consecutive bytes with random ones."""
    if (found := payload(packet)) is None:
        return None
    start, end = found
    length = min(BURST, end - start)
    at = rng.randrange(start, end - length + 1)
    new = rng.randbytes(length)
    return _written(packet, (at, new)) if new != packet[at : at + length] else None


#: Every kind of corruption, by its name in settings and counters.
MODES: dict[str, Damage] = {"bitflip": bitflip, "swap16": swap16, "plusminus": plusminus, "random": burst}


def _pairs(packet: bytes, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Yield the offsets of random pairs of payload words; headers are whole words, so these are aligned too."""
    found = payload(packet)
    if found is None or (words := (found[1] - found[0]) // 2) < 2:
        return
    for _ in range(TRIES):
        a, b = rng.sample(range(words), 2)
        yield found[0] + 2 * a, found[0] + 2 * b


def _written(packet: bytes, *changes: tuple[int, bytes]) -> bytes:
    damaged = bytearray(packet)
    for at, new in changes:
        damaged[at : at + len(new)] = new
    return bytes(damaged)
