"""What came of one answer that passed a link which damages payloads: how many wrong places, who noticed.

The origin's ``/bytes/N`` repeats 0, 1, … 255, so that any two different aligned words of 16 bits differ in both octets,
wherever the segment begins: words that changed places, or that grew and shrank by 257, leave exactly four wrong octets.
"""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

#: Octets that are wrong after one damage of `swap16`, or of `plusminus` with `K`.
WRONG_PER_DAMAGE = 4
#: Adds one to both octets of a word, and takes one from both of another.
K = 257
_PERIOD = bytes(range(256))
_BLOCK = 4096
#: What differs from one head to the next: times, and whether the edge's upstream connection was new.
_VARIES = re.compile(rb'\d+|desc="\w+"')


@dataclass(frozen=True, slots=True)
class Fetch:
    """One answer, and what the network and the kernel counted meanwhile."""

    #: Packets that `wan` damaged.
    damaged: int
    #: Of those, how many an application got to see.
    delivered: int
    #: Wrong octets of the body.
    wrong: int
    #: Octets of the body that came.
    octets: int
    #: Segments that the kernel refused for their checksum.
    refused: int
    #: Whether the connection ended before the answer was whole, as TLS does it.
    ended: bool
    #: Whether the body has the CRC-32 that it should; the head has none.
    crc_holds: bool
    #: Segments that came twice: of two copies one is thrown away, and a damage in it with it.
    twice: int = 0
    #: Whether the head is not what it should be: no CRC-32 of a body says so.
    head_is_wrong: bool = False


def body(octets: int) -> bytes:
    """Return the body of ``/bytes/N`` as it leaves the origin."""
    return (_PERIOD * (octets // 256 + 1))[:octets]


def wrong_octets(got: bytes, expected: bytes) -> int:
    """Return how many octets differ, as far as *got* goes."""
    count = 0
    for at in range(0, len(got), _BLOCK):
        ours, theirs = got[at : at + _BLOCK], expected[at : at + _BLOCK]
        if ours != theirs:
            count += sum(a != b for a, b in zip(ours, theirs, strict=False))
    return count


def same_head(head: bytes, clean: bytes) -> bool:
    """Return whether *head* says what the *clean* one says, times apart."""
    return _VARIES.sub(b"#", head) == _VARIES.sub(b"#", clean)


def delivered(wrong: int, *, head_is_wrong: bool) -> int:
    """Return how many damages lie behind *wrong* octets of the body and a head that is wrong or not.

    The two words of one damage may lie on both sides of the head's end: then the body has half of it.
    """
    whole, rest = divmod(wrong, WRONG_PER_DAMAGE)
    return whole + (1 if rest or head_is_wrong else 0)


def judge(
    stream: bytes, octets: int, clean_head: bytes, *, ended: bool, damaged: int, refused: int = 0, twice: int = 0
) -> Fetch:
    """Compare what came with what was sent.

    Args:
        stream: head and body, as far as they came.
        octets: that the body should have.
        clean_head: a head that nobody damaged.
        ended: whether the connection ended early.
        damaged: packets that `wan` damaged meanwhile.
        refused: segments that the kernel refused.
        twice: segments that came twice.
    """
    # No damage changes a length: the head is what comes before the last N octets; of half an answer, what ends first.
    split = stream.find(b"\r\n\r\n") + 4 if ended else max(0, len(stream) - octets)
    head, got = stream[:split], stream[split:]
    expected = body(octets)
    wrong = wrong_octets(got, expected)
    head_is_wrong = bool(head) and not same_head(head, clean_head)
    return Fetch(
        damaged,
        delivered(wrong, head_is_wrong=head_is_wrong),
        wrong,
        len(got),
        refused,
        ended,
        zlib.crc32(got) == zlib.crc32(expected),
        twice,
        head_is_wrong,
    )


def total(fetches: Iterable[Fetch], name: str) -> int:
    """Return the sum of one of their counts."""
    return sum(int(getattr(each, name)) for each in fetches)
