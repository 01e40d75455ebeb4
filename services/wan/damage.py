"""Corrupts the payload of an IPv4 packet, in ways that the TCP or UDP checksum detects or misses.

The Internet checksum (RFC 1071) is a sum of 16-bit words.  It does not change when two words are swapped, or when one
word increases by as much as another decreases (Stone and Partridge 2000, "When the CRC and TCP checksum disagree").
So the checksum stays valid after every `swap16` and `plusminus`, never after `bitflip`, and after `random` with a
probability of 1 in 65,535.

Only TCP and UDP payloads change.  Lengths, ports and the IPv4 header checksum stay valid, so the packet is delivered,
and the receiver has to detect the corruption in its transport protocol or in TLS.  Sans-IO: the random generator is an
argument.
"""

import random
from collections.abc import Callable, Iterator

from wireformat.ip import HeaderError, decode

#: Number of random word pairs to try.  The limit is needed because a payload of equal words has no pair to swap.
TRIES = 16
#: Number of bytes that `random` overwrites: longer than the checksum, like an error burst from faulty memory or cables.
BURST = 16

#: A corruption function: takes the packet, the random generator and the k of `plusminus`; returns the corrupted packet,
#: or None if the packet cannot be corrupted in this way.
Damage = Callable[[bytes, random.Random, int], bytes | None]


def payload(packet: bytes) -> tuple[int, int] | None:
    """Return the start and end offsets of the payload of a TCP segment or UDP datagram.

    Return None for packets without payload, for fragments (the transport header may be in another fragment), and for
    packets with inconsistent length fields.
    """
    try:
        found = decode(packet)
    except HeaderError:
        return None
    if found.transport is None or found.ip.more_fragments or not found.payload:
        return None
    return found.payload_start, len(found.data)


def bitflip(packet: bytes, rng: random.Random, _: int = 0) -> bytes | None:
    """Flip one random bit of the payload."""
    if (found := payload(packet)) is None:
        return None
    start, end = found
    damaged = bytearray(packet)
    damaged[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def swap16(packet: bytes, rng: random.Random, _: int = 0) -> bytes | None:
    """Swap two unequal, aligned 16-bit words of the payload."""
    for a, b in _pairs(packet, rng):
        first, second = packet[a : a + 2], packet[b : b + 2]
        if first != second:
            return _written(packet, (a, second), (b, first))
    return None


def plusminus(packet: bytes, rng: random.Random, k: int) -> bytes | None:
    """Add *k* to one aligned 16-bit word of the payload and subtract it from another, without overflow in either."""
    for a, b in _pairs(packet, rng):
        more, less = (int.from_bytes(packet[at : at + 2], "big") + by for at, by in ((a, k), (b, -k)))
        if more <= 0xFFFF and less >= 0:
            return _written(packet, (a, more.to_bytes(2, "big")), (b, less.to_bytes(2, "big")))
    return None


def burst(packet: bytes, rng: random.Random, _: int = 0) -> bytes | None:
    """Overwrite up to `BURST` consecutive payload bytes with random bytes."""
    if (found := payload(packet)) is None:
        return None
    start, end = found
    length = min(BURST, end - start)
    at = rng.randrange(start, end - length + 1)
    new = rng.randbytes(length)
    return _written(packet, (at, new)) if new != packet[at : at + length] else None


#: Corruption functions, keyed by mode, the name used in settings and counters.
MODES: dict[str, Damage] = {"bitflip": bitflip, "swap16": swap16, "plusminus": plusminus, "random": burst}


def _pairs(packet: bytes, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Yield offsets of random pairs of 16-bit payload words; they are aligned because header lengths are even."""
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
