"""Finished answers: the part of a response that follows the question, encoded once, at an address that never moves.

`Listener` sends these without a line of Python per query (`serving.batch`); everything else is the handler's.
"""

import ctypes
import struct

from dnsmessage.message import HEADER, PLAIN_UDP

#: Bytes of memory taken at once for bodies.
CHUNK = 1 << 20
#: Room that every response needs next to its body: header and OPT.
OVERHEAD = HEADER.size + 11
#: Address and length of the body for the kernel's ``struct iovec``; then the counts of answers, authorities,
#: additionals, and additionals with OPT, in network order.
ENTRY = struct.Struct("=QQ")
COUNTS = struct.Struct("!4H")

Counts = tuple[int, int, int]


class Answers:
    """Finished answers by question (name, type and class on the wire, in lower case)."""

    def __init__(self, flags: int) -> None:
        """Make an empty table; *flags* are the header's flags of every answer in it, rcode included."""
        self.flags = flags
        #: Answers of at most 512 bytes.  `bytes.lower` on a whole question must not change its type, so the few types
        #: whose number is a letter in ASCII are in `others`.
        self.entries: dict[bytes, bytes] = {}
        #: Larger answers, and those types.
        self.others: dict[bytes, bytes] = {}
        self._chunks: list[ctypes.Array[ctypes.c_char]] = []
        self._lent: dict[bytes, ctypes.Array[ctypes.c_char]] = {}
        self._view = memoryview(b"")
        self._address = self._used = 0

    def __len__(self) -> int:
        return len(self.entries) + len(self.others)

    def __repr__(self) -> str:
        return f"<Answers {len(self)} chunks={len(self._chunks)}>"

    def add(self, question: bytes, counts: Counts, body: bytes) -> None:
        """Store a finished answer.

        Args:
            question: name in lower case, type and class, on the wire.
            counts: records in the answer, authority and additional section.
            body: the sections; pointers in it count from the header of a response with this question.
        """
        size = len(body)
        if size > CHUNK - self._used or not self._chunks:
            self._chunks.append(ctypes.create_string_buffer(max(CHUNK, size)))
            self._address, self._used = ctypes.addressof(self._chunks[-1]), 0
            self._view = memoryview(self._chunks[-1]).cast("B")
        at = self._used
        self._view[at : at + size] = body
        self._used = at + size
        small = size + len(question) + OVERHEAD <= PLAIN_UDP and not _has_letter(question[-4:])
        (self.entries if small else self.others)[question] = _entry(self._address + at, size, counts)

    def lend(self, question: bytes, counts: Counts, body: bytearray) -> bool:
        """Store an answer whose *body* stays in the caller's memory until `discard`; its size must not change.

        Returns:
            Whether it was stored: large answers, and types whose number is a letter in ASCII, are not.
        """
        if len(body) + len(question) + OVERHEAD > PLAIN_UDP or _has_letter(question[-4:]):
            return False
        memory = (ctypes.c_char * len(body)).from_buffer(body)
        self._lent[question] = memory
        self.entries[question] = _entry(ctypes.addressof(memory), len(body), counts)
        return True

    def discard(self, question: bytes) -> None:
        """Forget a lent answer."""
        self.entries.pop(question, None)
        self._lent.pop(question, None)

    def get(self, question: bytes) -> tuple[bytes, bytes] | None:
        """Return counts (as in `COUNTS`) and body of the answer to a question whose name is in lower case."""
        entry = self.others.get(question) or (None if _has_letter(question[-4:]) else self.entries.get(question))
        if entry is None:
            return None
        address, size = ENTRY.unpack_from(entry)
        return entry[16:], ctypes.string_at(address, size)

    def merge(self, other: "Answers") -> None:
        """Take over the answers of *other*, which must not be changed from now on."""
        self.entries.update(other.entries)
        self.others.update(other.others)
        self._chunks = other._chunks + self._chunks  # noqa: SLF001 - keeps their memory alive


def _entry(address: int, size: int, counts: Counts) -> bytes:
    an, ns, ar = counts
    return ENTRY.pack(address, size) + COUNTS.pack(an, ns, ar, ar + 1)


def _has_letter(end: bytes) -> bool:
    """Return whether type and class at the end of a question have a letter in them."""
    return end.lower() != end.upper()
