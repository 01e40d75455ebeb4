"""Finished answers: the encoded part of a response after the question, stored at a fixed memory address.

`serving.batch` sends these answers without running Python code per query; the handler answers all other queries.
"""

import ctypes
import struct

from dnsmessage.message import HEADER, PLAIN_UDP

#: Size of one memory chunk for answer bodies, in bytes.
CHUNK = 1 << 20
#: Maximum size of the header and the OPT record, which every response needs in addition to its body, in bytes.
OVERHEAD = HEADER.size + 11
#: Table entry: address and length of the body (a ``struct iovec``), followed by the record counts in network order:
#: answers, authorities, additionals, and additionals including OPT.
ENTRY = struct.Struct("=QQ")
COUNTS = struct.Struct("!4H")

Counts = tuple[int, int, int]


class Answers:
    """A table of finished answers by question (name in lower case, type and class, in wire form)."""

    def __init__(self, flags: int) -> None:
        """Create an empty table; *flags* are the header flags and rcode of every answer in it."""
        self.flags = flags
        #: Answers of at most 512 bytes. The listener applies `bytes.lower` to whole questions, so this table excludes
        #: the few record types whose number contains the code of an ASCII letter.
        self.entries: dict[bytes, bytes] = {}
        #: Larger answers, and answers for the record types that `entries` excludes.
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
        """Copy a finished answer into the table.

        Args:
            question: name in lower case, type and class, in wire form.
            counts: number of records in the answer, authority and additional sections.
            body: the encoded sections; compression pointers count from the start of a response with this question.
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
        """Add an answer whose *body* stays in the caller's memory until `discard`; its size must not change.

        Returns:
            False if the answer was not added because it is too large for `entries` or has a type that `entries`
            excludes.
        """
        if len(body) + len(question) + OVERHEAD > PLAIN_UDP or _has_letter(question[-4:]):
            return False
        memory = (ctypes.c_char * len(body)).from_buffer(body)
        self._lent[question] = memory
        self.entries[question] = _entry(ctypes.addressof(memory), len(body), counts)
        return True

    def discard(self, question: bytes) -> None:
        """Remove an answer that was added with `lend`."""
        self.entries.pop(question, None)
        self._lent.pop(question, None)

    def get(self, question: bytes) -> tuple[bytes, bytes] | None:
        """Return the counts (packed as `COUNTS`) and the body for a lower-case question; None if it is unknown."""
        entry = self.others.get(question) or (None if _has_letter(question[-4:]) else self.entries.get(question))
        if entry is None:
            return None
        address, size = ENTRY.unpack_from(entry)
        return entry[16:], ctypes.string_at(address, size)

    def merge(self, other: "Answers") -> None:
        """Add the answers of *other* to this table; *other* must not change afterwards."""
        self.entries.update(other.entries)
        self.others.update(other.others)
        self._chunks = other._chunks + self._chunks  # noqa: SLF001 - keeps their memory allocated


def _entry(address: int, size: int, counts: Counts) -> bytes:
    an, ns, ar = counts
    return ENTRY.pack(address, size) + COUNTS.pack(an, ns, ar, ar + 1)


def _has_letter(end: bytes) -> bool:
    """Return whether the type and class at the end of a question contain the code of an ASCII letter."""
    return end.lower() != end.upper()
