"""Prebuilt answers: the encoded part of a response after the question, stored at a fixed memory address.

`serving.batch` sends these answers without running Python code per query; the handler answers all other queries.
"""

import ctypes
import struct

from dnsmessage import encode_opt
from dnsmessage.message import CD, HEADER, PLAIN_UDP, RD

#: Size of one memory chunk for answer bodies, in bytes.
CHUNK = 1 << 20
#: Maximum size of the header and the OPT record, which every response needs in addition to its body, in bytes.
OVERHEAD = HEADER.size + 11
#: First part of a table entry: address and length of the body (a ``struct iovec``).
ENTRY = struct.Struct("=QQ")
#: Second part of a table entry: numbers of answers, authorities, additionals, and additionals including OPT.
COUNTS = struct.Struct("!4H")

#: Maximum number of prepared responses, at 600 to 1,200 bytes each. At the limit, all of them are dropped.
MAX_PREPARED = 4096
#: The four header counts of a query without and with an OPT record.
PLAIN_COUNTS, EDNS_COUNTS = bytes((0, 1, 0, 0, 0, 0, 0, 0)), bytes((0, 1, 0, 0, 0, 0, 0, 1))
#: The two OPT records of responses, without and with the DO flag; their memory address is fixed.
PLAIN_OPT, DO_OPT = encode_opt(), encode_opt(dnssec_ok=True)
_OPTS = ctypes.create_string_buffer(PLAIN_OPT + DO_OPT)
OPT_SIZE = len(PLAIN_OPT)
OPT_ADDRESS = ctypes.addressof(_OPTS)

Counts = tuple[int, int, int]


class Answers:
    """A table of prebuilt answers, keyed by question (name in lower case, type and class, in wire form)."""

    def __init__(self, flags: int) -> None:
        """Create an empty table; *flags* are the header flags and rcode of every answer in it."""
        self.flags = flags
        #: Answers of at most 512 bytes. The listener applies `bytes.lower` to whole questions, including the type. The
        #: table therefore excludes the few record types that have an ASCII letter in one of the two bytes of their
        #: number: for example, `lower` would turn type 65 (the byte ``A``) into type 97 (the byte ``a``).
        self.entries: dict[bytes, bytes] = {}
        #: Larger answers, and answers for the record types that `entries` excludes.
        self.others: dict[bytes, bytes] = {}
        #: Prepared responses. The key is the query as passed to `prepare`. Each value holds the memory area of the
        #: response without its ID (`ENTRY`), the question in lower case, and the sizes of the query and the response in
        #: bytes.
        self.prepared: dict[bytes, tuple[bytes, bytes, int, int]] = {}
        #: Queries in `prepared`, keyed by lower-case question, each with the memory that the entry in `prepared` points
        #: to.
        self._copies: dict[bytes, list[tuple[bytes, ctypes.Array[ctypes.c_char]]]] = {}
        self._chunks: list[ctypes.Array[ctypes.c_char]] = []
        self._lent: dict[bytes, ctypes.Array[ctypes.c_char]] = {}
        self._view = memoryview(b"")
        self._address = self._used = 0
        #: Total size in bytes of all bodies added so far, including removed ones.
        self.size = 0

    def __len__(self) -> int:
        return len(self.entries) + len(self.others)

    def __repr__(self) -> str:
        return f"<Answers {len(self)} chunks={len(self._chunks)}>"

    def add(self, question: bytes, counts: Counts, body: bytes) -> None:
        """Copy a prebuilt answer into the table.

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
        self.size += size
        self._used = at + size
        small = size + len(question) + OVERHEAD <= PLAIN_UDP and not _has_letter(question[-4:])
        (self.entries if small else self.others)[question] = _entry(self._address + at, size, counts)

    def lend(self, question: bytes, counts: Counts, body: bytearray) -> bool:
        """Add an answer whose *body* stays in the caller's memory until `discard`; the size must not change.

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
        for query, _ in self._copies.pop(question, ()):
            del self.prepared[query]
        self._lent.pop(question, None)

    def refresh(self, question: bytes) -> None:
        """Copy the body of an answer that was added with `lend` into its prepared responses, after a change."""
        address, size = ENTRY.unpack_from(self.entries[question])
        for _, copy in self._copies.get(question, ()):
            ctypes.memmove(ctypes.addressof(copy) + HEADER.size - 2 + len(question), address, size)

    def prepare(self, query: bytes, size: int, question: bytes, flags: bytes, dnssec_ok: bool | None) -> None:
        """Store the whole response to *query*, so that an identical query (except for the ID) takes one lookup.

        Args:
            query: the query without its ID, padded with zeros.
            size: size of the query in bytes, with its ID.
            question: the query's question in lower case, a key of `entries`.
            flags: flags and rcode of the response, two bytes.
            dnssec_ok: the DO flag of the response; None if the query has no OPT record.
        """
        if len(self.prepared) >= MAX_PREPARED:
            self.prepared.clear()
            self._copies.clear()
        entry = self.entries[question]
        counts = entry[16:20] + (entry[20:22] if dnssec_ok is None else entry[22:24])
        body = ctypes.string_at(*ENTRY.unpack_from(entry))
        opt = b"" if dnssec_ok is None else DO_OPT if dnssec_ok else PLAIN_OPT
        response = b"".join((flags, query[2:4], counts, query[10 : 10 + len(question)], body, opt))
        copy = ctypes.create_string_buffer(response, len(response))
        self.prepared[query] = ENTRY.pack(ctypes.addressof(copy), len(copy)), question, size, 2 + len(copy)
        self._copies.setdefault(question, []).append((query, copy))

    def get(self, question: bytes) -> tuple[bytes, bytes] | None:
        """Return the counts (packed as `COUNTS`) and the body for a lower-case question; None if there is no answer."""
        entry = self.others.get(question) or (None if _has_letter(question[-4:]) else self.entries.get(question))
        if entry is None:
            return None
        address, size = ENTRY.unpack_from(entry)
        return entry[16:], ctypes.string_at(address, size)

    def copy(self) -> "Answers":
        """Return a copy that shares the encoded bodies in memory; the original must not change afterwards."""
        copy = Answers(self.flags)
        copy.entries, copy.others, copy.size = dict(self.entries), dict(self.others), self.size
        copy._chunks, copy._view = list(self._chunks), self._view
        copy._address, copy._used = self._address, self._used
        return copy

    def drop(self, question: bytes) -> None:
        """Remove an answer if there is one; its body stays in memory."""
        self.entries.pop(question, None)
        self.others.pop(question, None)

    def respond(self, wire: bytes) -> bytes | None:
        """Return the response to a plain query with a small prebuilt answer; None if the handler has to answer.

        A plain query has no flags except RD and CD, and no record except an OPT record without options.
        """
        counts, end, opt = wire[4:12], len(wire), b""
        if counts == EDNS_COUNTS:
            end -= len(PLAIN_OPT)
            opt = wire[end:]
            if opt[:3] != PLAIN_OPT[:3] or opt[5:7] != b"\0\0" or opt[7:8] not in {b"\0", b"\x80"} or any(opt[8:]):
                return None
        elif counts != PLAIN_COUNTS:
            return None
        entry = self.entries.get(wire[12:end].lower())
        if entry is None or wire[2] & 0xFE:
            return None
        address, size = ENTRY.unpack_from(entry)
        flags = self.flags | int.from_bytes(wire[2:4], "big") & (RD | CD)
        records = entry[16:20] + (entry[22:24] if opt else entry[20:22])
        tail = (DO_OPT if opt[7] else PLAIN_OPT) if opt else b""
        head = b"".join((wire[:2], flags.to_bytes(2, "big"), b"\0\1", records))
        return b"".join((head, wire[12:end], ctypes.string_at(address, size), tail))

    def merge(self, other: "Answers") -> None:
        """Add the answers of *other* to this table; *other* must not change afterwards."""
        self.entries.update(other.entries)
        self.others.update(other.others)
        self._chunks = other._chunks + self._chunks  # noqa: SLF001 - attribute of another instance of this class


def _entry(address: int, size: int, counts: Counts) -> bytes:
    an, ns, ar = counts
    return ENTRY.pack(address, size) + COUNTS.pack(an, ns, ar, ar + 1)


def _has_letter(end: bytes) -> bool:
    """Return whether a byte of the type and class at the end of a question is an ASCII letter (see `entries`)."""
    return end.lower() != end.upper()
