"""Compares a response received over a corrupting link with the bytes that were sent (scenario `integrity`).

The body of the origin's ``/bytes/N`` repeats 0, 1, … 255, so any two different aligned 16-bit words differ in both
bytes, regardless of where a segment begins.  Both swapping two words, and adding 257 to one word while subtracting 257
from another, change exactly four bytes.
"""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

#: Wrong bytes per corrupted packet, for `swap16` and for `plusminus` with `K`.
WRONG_PER_PACKET = 4
#: Number that `plusminus` adds to one 16-bit word and subtracts from another; 257 changes both bytes of a word by 1.
K = 257
_PERIOD = bytes(range(256))
_BLOCK = 4096
#: Parts of a head that differ between responses: times, and whether the edge's upstream connection was new.
_VARIES = re.compile(rb'\d+|desc="\w+"')


@dataclass(frozen=True, slots=True)
class Fetch:
    """One response, with the increase of the router's and this host's kernel counters during the response."""

    #: Number of packets that `wan` corrupted.
    corrupted: int
    #: Number of corrupted packets that TCP delivered to the application.
    delivered: int
    #: Number of wrong bytes in the body.
    wrong: int
    #: Number of body bytes received.
    received: int
    #: Number of segments that this host's kernel dropped because of a wrong checksum.
    dropped: int
    #: Whether the connection ended before the response was complete, as TLS connections do after corruption.
    ended: bool
    #: Whether the CRC-32 of the body is correct; it does not cover the head.
    crc_holds: bool
    #: Number of segments received twice; TCP discards one copy, whether it is corrupt or not.
    duplicates: int = 0
    #: Whether the response head contains wrong bytes.
    head_is_wrong: bool = False


def body(size: int) -> bytes:
    """Return the body of ``/bytes/N`` as the origin sends it, for N = *size*."""
    return (_PERIOD * (size // 256 + 1))[:size]


def wrong_bytes(received: bytes, expected: bytes) -> int:
    """Return the number of wrong bytes in *received*."""
    count = 0
    for at in range(0, len(received), _BLOCK):
        ours, theirs = received[at : at + _BLOCK], expected[at : at + _BLOCK]
        if ours != theirs:
            count += sum(a != b for a, b in zip(ours, theirs, strict=False))
    return count


def same_head(head: bytes, clean: bytes) -> bool:
    """Return whether two response heads are equal, apart from the parts that differ in every response."""
    return _VARIES.sub(b"#", head) == _VARIES.sub(b"#", clean)


def delivered(wrong: int, *, head_is_wrong: bool) -> int:
    """Return the number of corrupted packets that were delivered, inferred from the wrong bytes in body and head.

    If one of a packet's two corrupted words is in the head and the other in the body, the body has only half of that
    packet's wrong bytes.
    """
    whole, rest = divmod(wrong, WRONG_PER_PACKET)
    return whole + (1 if rest or head_is_wrong else 0)


def compare(
    stream: bytes, size: int, clean_head: bytes, *, ended: bool, corrupted: int, dropped: int = 0, duplicates: int = 0
) -> Fetch:
    """Compare a received response with the one that was sent.

    Args:
        stream: received bytes, head and body.
        size: length of the body that was sent, in bytes.
        clean_head: head of an uncorrupted response.
        ended: whether the connection ended early.
        corrupted: packets that `wan` corrupted during the response.
        dropped: segments that this host's kernel dropped during the response.
        duplicates: segments that arrived twice.
    """
    # Corruption does not change lengths, so the body of a complete response is its last *size* bytes.  If the
    # connection ended early, the head ends at the first blank line.
    split = stream.find(b"\r\n\r\n") + 4 if ended else max(0, len(stream) - size)
    head, received = stream[:split], stream[split:]
    expected = body(size)
    wrong = wrong_bytes(received, expected)
    head_is_wrong = bool(head) and not same_head(head, clean_head)
    return Fetch(
        corrupted=corrupted,
        delivered=delivered(wrong, head_is_wrong=head_is_wrong),
        wrong=wrong,
        received=len(received),
        dropped=dropped,
        ended=ended,
        crc_holds=zlib.crc32(received) == zlib.crc32(expected),
        duplicates=duplicates,
        head_is_wrong=head_is_wrong,
    )


def total(fetches: Iterable[Fetch], name: str) -> int:
    """Return the sum of the field *name* over all *fetches*."""
    return sum(int(getattr(each, name)) for each in fetches)
