"""Compares a response that crossed a corrupting link with what was sent (scenario `integrity`).

The origin's ``/bytes/N`` repeats 0, 1, … 255, so any two different aligned 16-bit words differ in both bytes, wherever
a segment begins.  Two words that are swapped, or of which one grows by 257 and the other shrinks by 257, leave exactly
four wrong bytes.
"""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

#: Wrong bytes per corrupted packet with `swap16`, and with `plusminus` by `K`.
WRONG_PER_PACKET = 4
#: Adds one to both bytes of a word, and subtracts one from both of another.
K = 257
_PERIOD = bytes(range(256))
_BLOCK = 4096
#: Parts of a head that change between responses: times, and whether the edge's upstream connection was new.
_VARIES = re.compile(rb'\d+|desc="\w+"')


@dataclass(frozen=True, slots=True)
class Fetch:
    """One response, and what the router and our kernel counted meanwhile."""

    #: Packets that `wan` corrupted.
    corrupted: int
    #: How many of them reached the application.
    delivered: int
    #: Wrong bytes of the body, and bytes of the body that arrived.
    wrong: int
    received: int
    #: Segments that our kernel dropped because of their checksum.
    dropped: int
    #: Whether the connection ended before the response was complete, as TLS does.
    ended: bool
    #: Whether the body has the right CRC-32; the head is not covered.
    crc_holds: bool
    #: Segments that arrived twice: one copy is discarded, corrupt or not.
    duplicates: int = 0
    #: Whether the head is wrong.
    head_is_wrong: bool = False


def body(size: int) -> bytes:
    """Return the body of ``/bytes/N`` as the origin sends it."""
    return (_PERIOD * (size // 256 + 1))[:size]


def wrong_bytes(received: bytes, expected: bytes) -> int:
    """Return how many bytes differ, as far as *received* goes."""
    count = 0
    for at in range(0, len(received), _BLOCK):
        ours, theirs = received[at : at + _BLOCK], expected[at : at + _BLOCK]
        if ours != theirs:
            count += sum(a != b for a, b in zip(ours, theirs, strict=False))
    return count


def same_head(head: bytes, clean: bytes) -> bool:
    """Return whether two heads are equal except for the parts that always change."""
    return _VARIES.sub(b"#", head) == _VARIES.sub(b"#", clean)


def delivered(wrong: int, *, head_is_wrong: bool) -> int:
    """Return how many corrupted packets explain *wrong* bytes in the body and a head that is wrong or not.

    The two words of one packet may lie on both sides of the end of the head; then the body holds half of the damage.
    """
    whole, rest = divmod(wrong, WRONG_PER_PACKET)
    return whole + (1 if rest or head_is_wrong else 0)


def compare(
    stream: bytes, size: int, clean_head: bytes, *, ended: bool, corrupted: int, dropped: int = 0, duplicates: int = 0
) -> Fetch:
    """Compare what arrived with what was sent.

    Args:
        stream: head and body, as far as they arrived.
        size: bytes of the body that was sent.
        clean_head: head of an uncorrupted response.
        ended: whether the connection ended early.
        corrupted: packets that `wan` corrupted meanwhile.
        dropped: segments that our kernel dropped meanwhile.
        duplicates: segments that arrived twice.
    """
    # Corruption changes no length: the body is the last *size* bytes.  If the connection ended early, the head ends at
    # the first blank line.
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
    """Return the sum of one of their counts."""
    return sum(int(getattr(each, name)) for each in fetches)
