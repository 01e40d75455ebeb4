"""Batched UDP: one `recvmmsg` and one `sendmmsg` per batch, and no Python code per query with a prebuilt answer.

If every query of a batch is identical to an earlier one, except for its ID, each response consists of the ID in the
receive buffer and the response prepared for the earlier query (`Answers.prepare`), one contiguous block. This takes one
lookup per query.

Otherwise, if all queries in a batch have the same header flags, counts and OPT record, a few calls into C look up all
answers. Each response is sent from three memory areas without copying: the receive buffer (header and question), the
compiled zone (body), and a constant OPT record. All other queries go to the handler one by one; each reply is copied to
a buffer slot.
"""

import ctypes
import socket
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from itertools import repeat
from operator import add, getitem, sub
from typing import Protocol

from dnsmessage.message import CD, RD
from serving.answers import OPT_ADDRESS, OPT_SIZE, Answers
from serving.sending import CONTROL, IP_PKTINFO, Block, Sender

#: Maximum number of queries per system call: large enough to spread the cost of the call, small enough for queries and
#: responses to fit into the processor's L1 cache.
BATCH = 32
#: Size of a receive slot, and maximum size of a query, in bytes. The part of a query that exceeds its slot goes to an
#: overflow buffer. Names in real queries rarely fill half a slot, and small slots stay in the processor's cache.
SLOT, MAX_QUERY = 128, 4096
#: Maximum size of a UDP reply, in bytes.
MAX_REPLY = 4096
#: Padding before the first slot, in bytes; it aligns the four counts of each header to an 8-byte boundary.
_SHIFT = 4
#: Socket option and value that set the Don't Fragment flag and ignore path MTU messages of ICMP (ip(7)): a forged
#: message cannot cause fragmentation, and replies fit into the MTU of every common path (RFC 9715 section 3.1).
IP_MTU_DISCOVER, IP_PMTUDISC_PROBE = 10, 3
#: The four header counts of a query without and with an OPT record.
_PLAIN, _EDNS = bytes((0, 1, 0, 0, 0, 0, 0, 0)), bytes((0, 1, 0, 0, 0, 0, 0, 1))
_OPT = OPT_SIZE
#: After `TRUST` consecutive batches that each contain a new query, prepared responses are looked up in only one of
#: every `PROBE` batches. Queries in random case, for example, are never repeated, so looking them up would waste time.
TRUST, PROBE = 32, 64
#: Table entry that marks a query without a prebuilt answer.
_MISS = bytes(24)

Client = tuple[str, int]
#: ``handle(query, client, local)`` returns the reply, or None if there is no reply or it is sent later. *local* is the
#: address information that `send_later` needs.
Handle = Callable[[bytes, Client, bytes], bytes | bytearray | None]


class Finished(Protocol):
    """A source of prebuilt answers."""

    def answers(self) -> Answers | None:
        """Return the prebuilt answers that are currently valid, or None to pass every query to the handler."""

    def answered(self, questions: list[bytes], clients: bytes) -> None:
        """Count and log answered queries: lower-case questions, and clients as consecutive struct sockaddr_in."""


def available() -> bool:
    """Return whether this system has `recvmmsg` and the structure layouts that this module assumes."""
    if sys.platform != "linux" or struct.calcsize("P") != 8 or sys.byteorder != "little":
        return False
    return hasattr(ctypes.PyDLL(None), "recvmmsg")


def client_of(name: bytes) -> Client:
    """Return the address and port in a struct sockaddr_in."""
    return socket.inet_ntoa(name[4:8]), int.from_bytes(name[2:4], "big")


class Batch:
    """Buffers and system calls for batched I/O on one socket."""

    def __init__(self, sock: socket.socket, *, wildcard: bool) -> None:
        """Prepare *sock* for batched I/O.

        If *wildcard* is True, *sock* is bound to 0.0.0.0 and each reply is sent from the address that received the
        query.
        """
        self._fd, self._wildcard = sock.fileno(), wildcard
        self.sender = Sender(sock, BATCH, wildcard=wildcard)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        if wildcard:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        libc = ctypes.PyDLL(None, use_errno=True)  # PyDLL keeps the GIL, which is fine because the calls never block
        self._recvmmsg = libc.recvmmsg
        self._recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
        self._rx, self._overflow = Block(BATCH * SLOT + 8), Block(BATCH * (MAX_QUERY - SLOT))
        self._tx = Block(BATCH * MAX_REPLY)
        self._names, self._control = Block(BATCH * 16), Block(BATCH * CONTROL)
        self._keep = [Block(BATCH * size) for size in (32, 48, 32, 64, 64, 64)]
        receive_iov, send_iov, prepared_iov, receive_header, send_header, prepared_header = self._keep
        riov, siov, _, rheader, sheader, pheader = (block.view.cast("Q") for block in self._keep)
        self._send_at, self._receive_at = send_header.address, receive_header.address
        self._prepared_at, self._prepared_iov = prepared_header.address, prepared_iov.view
        for i in range(BATCH):
            slot = self._rx.address + _SHIFT + i * SLOT
            riov[4 * i : 4 * i + 4] = array(
                "Q", [slot, SLOT, self._overflow.address + i * (MAX_QUERY - SLOT), MAX_QUERY - SLOT]
            )
            name, control = self._names.address + 16 * i, self._control.address + CONTROL * i
            size = CONTROL if wildcard else 0
            for header, vector, count in (
                (rheader, receive_iov.address + 32 * i, 2),
                (sheader, send_iov.address + 48 * i, 2),
                (pheader, prepared_iov.address + 32 * i, 2),
            ):
                header[8 * i : 8 * i + 6] = array("Q", [name, 16, vector, count, control if wildcard else 0, size])
            siov[6 * i] = slot
        # Strided views; each covers one field of every slot.
        words = self._rx.view.cast("H")[_SHIFT // 2 :]
        row = SLOT // 2
        self._flags, self._an, self._ns, self._ar = (words[at::row][:BATCH] for at in (1, 3, 4, 5))
        self._counts = self._rx.view.cast("Q")[1 :: SLOT // 8][:BATCH]
        self._lengths = receive_header.view.cast("I")[14::16]
        self._control_sizes = rheader[5::8]
        self._interfaces = self._control.view.cast("I")[4::8]
        self._vectors = sheader[3::8]
        self._siov, self._replies = siov, send_iov.view
        self._question_sizes, self._body_at, self._body_sizes = siov[1::6], siov[2::6], siov[3::6]
        self._opt_at, self._opt_sizes = siov[4::6], siov[5::6]
        self._slot_at = siov[0::6]
        self._slots = array("Q", self._slot_at.tolist())
        self._vectors_now = 2  # number of iovec entries per reply in the last batch; 0 if it differed between replies
        self._bases = range(0, BATCH * SLOT, SLOT)
        #: Position of the question in the receive buffer, keyed by slot and by query size without OPT.
        self._questions = [[slice(at + 12, at + size) for size in range(SLOT + 1)] for at in self._bases]
        #: Functions that read the queries from the receive buffer, without IDs and padded with zeros; keyed by batch
        #: size.
        self._queries = [struct.Struct(f"2x{SLOT - 2}s" * count).unpack_from for count in range(BATCH + 1)]
        #: Functions that read the clients' addresses, keyed by batch size.
        self._clients = [struct.Struct("16s" * count).unpack_from for count in range(BATCH + 1)]
        #: Functions that read the memory areas of the replies from `_replies`, by areas per reply and batch size.
        self._areas = {
            size: [struct.Struct(f"{16 * size}s{48 - 16 * size}x" * count).unpack_from for count in range(BATCH + 1)]
            for size in (2, 3)
        }
        self._zeros, self._used = memoryview(bytes(BATCH * SLOT)), 0
        #: First memory area of each prepared response: the ID in the receive buffer.
        self._ids = [struct.pack("=QQ", self._rx.address + _SHIFT + at, 2) for at in self._bases]
        self._trust, self._turns = TRUST, 0

    def turn(self, handle: Handle, finished: Finished | None) -> int:
        """Receive one batch of queries and send the replies; return the number of queries."""
        if self._wildcard:
            self._control_sizes[:] = array("Q", [CONTROL]) * BATCH
        self._rx.view[_SHIFT : _SHIFT + self._used] = self._zeros[: self._used]
        self.sender.grouping = False
        count = int(self._recvmmsg(self._fd, self._receive_at, BATCH, socket.MSG_DONTWAIT, None))
        if count <= 0:
            self._used = 0
            return 0
        self._used = count * SLOT
        if self._wildcard:
            self._interfaces[:count] = array("I", bytes(4 * count))
        lengths = self._lengths[:count].tolist()
        answers = finished.answers() if finished is not None else None
        misses: Sequence[int] = range(count)
        if finished is not None and answers is not None:
            self._turns += 1
            trying = self._trust > 0 or not self._turns % PROBE
            if trying and self._prepared(count, lengths, answers, finished):
                return count
        blob = self._rx.view[_SHIFT : _SHIFT + count * SLOT].tobytes()
        if finished is not None and answers is not None:
            misses = self._finished(blob, count, lengths, answers, finished, learn=trying)
        self._send(count, self._handled(blob, lengths, misses, handle) if misses else [])
        return count

    def _prepared(self, count: int, lengths: list[int], answers: Answers, finished: Finished) -> bool:
        """Send the prepared responses if every query of the batch has one; return whether they were sent."""
        try:
            found = list(map(answers.prepared.__getitem__, self._queries[count](self._rx.view, _SHIFT)))
        except KeyError:
            self._trust -= self._trust > 0
            return False
        areas, questions, lengths_known, sizes = zip(*found, strict=True)
        if list(lengths_known) != lengths:  # the lookup cannot tell trailing zero bytes from padding
            return False
        self._trust = TRUST
        finished.answered(list(questions), self._names.view[: 16 * count].tobytes())
        areas = tuple(map(add, self._ids, areas))
        keys = self._keys(count)
        if not (self.sender.gains(keys) and self.sender.grouped(keys, sizes, areas)):
            self._prepared_iov[: 32 * count] = b"".join(areas)
            self.sender.each(self._prepared_at, count)
        return True

    def _finished(
        self, blob: bytes, count: int, lengths: list[int], answers: Answers, finished: Finished, *, learn: bool
    ) -> Sequence[int]:
        """Fill in the replies to queries with a prebuilt answer; return the indexes of all other queries.

        With *learn*, also store these replies with `Answers.prepare`, for later identical queries.
        """
        counts, flags = self._counts[:count].tobytes(), self._flags[:count].tobytes()
        edns = counts[:8] == _EDNS
        if (
            not (edns or counts[:8] == _PLAIN)
            or counts != counts[:8] * count
            or flags != flags[:2] * count
            or flags[0] & 0xFE
            or max(lengths) > SLOT
            or min(lengths) < 17 + _OPT * edns
        ):
            return range(count)
        sizes, opt = lengths, b""
        if edns:
            sizes = list(map(sub, lengths, repeat(_OPT)))
            different = set(
                map(blob.__getitem__, map(slice, map(add, self._bases, sizes), map(add, self._bases, lengths)))
            )
            opt = different.pop()
            if different or opt[:3] != b"\0\0\x29" or opt[5:7] != b"\0\0" or opt[7] & 0x7F or opt[8:] != b"\0\0\0":
                return range(count)
        questions = list(map(bytes.lower, map(blob.__getitem__, map(getitem, self._questions, sizes))))
        found = list(map(answers.entries.get, questions, repeat(_MISS)))
        missed = found.count(_MISS)
        if missed == count:
            return range(count)
        row = memoryview(b"".join(found))
        numbers, words = row.cast("Q"), row.cast("H")
        self._question_sizes[:count] = array("Q", sizes)
        self._body_at[:count], self._body_sizes[:count] = numbers[0::3], numbers[1::3]
        self._an[:count], self._ns[:count] = words[8::12], words[9::12]
        self._ar[:count] = words[11::12] if edns else words[10::12]
        bits = answers.flags | int.from_bytes(flags[:2], "big") & (RD | CD)
        reply_flags = bits.to_bytes(2, "big")
        self._flags[:count] = array("H", reply_flags * count)
        if edns:
            self._opt_at[:count] = array("Q", [OPT_ADDRESS + _OPT * (opt[7] >> 7)]) * count
        if self._vectors_now != 2 + edns:
            self._restore(2 + edns)
        if learn:
            dnssec_ok = bool(opt[7] >> 7) if edns else None
            for i, entry in enumerate(found):
                query = blob[i * SLOT + 2 : (i + 1) * SLOT]
                if entry is not _MISS and lengths[i] <= SLOT and query not in answers.prepared:
                    answers.prepare(query, lengths[i], questions[i], reply_flags, dnssec_ok)
        clients = self._names.view[: 16 * count].tobytes()
        if not missed:
            finished.answered(questions, clients)
            return ()
        rest = [i for i, entry in enumerate(found) if entry is not _MISS]
        finished.answered([questions[i] for i in rest], b"".join(clients[16 * i : 16 * i + 16] for i in rest))
        return [i for i, entry in enumerate(found) if entry is _MISS]

    def _restore(self, vectors: int) -> None:
        """Point every reply at its receive slot again, with *vectors* memory areas: header and question, body, OPT."""
        self._slot_at[:] = self._slots
        self._vectors[:] = array("Q", [vectors]) * BATCH
        self._opt_sizes[:] = array("Q", [_OPT]) * BATCH
        self._vectors_now = vectors

    def _handled(self, blob: bytes, lengths: list[int], which: Sequence[int], handle: Handle) -> list[int]:
        """Pass the queries at the indexes *which* to the handler; return the indexes that get no reply now."""
        silent = []
        for i in which:
            wire = blob[i * SLOT : i * SLOT + lengths[i]] if lengths[i] <= SLOT else self._long(blob, i, lengths[i])
            client = client_of(self._names.view[16 * i : 16 * i + 16].tobytes())
            reply = handle(wire, client, self._local(i))
            if reply is None or len(reply) > MAX_REPLY:
                silent.append(i)
                continue
            at = i * MAX_REPLY
            self._tx.view[at : at + len(reply)] = reply
            self._siov[6 * i], self._siov[6 * i + 1] = self._tx.address + at, len(reply)
            self._vectors[i] = 1
            self._vectors_now = 0
        return silent

    def _long(self, blob: bytes, i: int, length: int) -> bytes:
        at = i * (MAX_QUERY - SLOT)
        return blob[i * SLOT : (i + 1) * SLOT] + self._overflow.view[at : at + length - SLOT].tobytes()

    def _local(self, i: int) -> bytes:
        """Return the struct in_pktinfo of a query, which sets the source address of the reply."""
        return self._control.view[CONTROL * i + 16 : CONTROL * i + 28].tobytes() if self._wildcard else b""

    def _keys(self, count: int) -> Sequence[bytes]:
        """Return each query's client address; on a wildcard socket, the destination address is appended to it."""
        keys: tuple[bytes, ...] = self._clients[count](self._names.view)
        if not self._wildcard:
            return keys
        control = self._control.view.tobytes()
        return [key + control[CONTROL * i : CONTROL * (i + 1)] for i, key in enumerate(keys)]

    def _send(self, count: int, silent: list[int]) -> None:
        """Send the replies of a batch, except for those at the indexes *silent*."""
        keys = self._keys(count)
        if len(silent) < count and self.sender.gains(keys):
            if self._vectors_now and not silent:
                areas = list(self._areas[self._vectors_now][count](self._replies))
                sizes = list(map(add, self._question_sizes[:count].tolist(), self._body_sizes[:count].tolist()))
                if self._vectors_now > 2:
                    sizes = list(map(add, sizes, repeat(_OPT)))
            else:
                which = [i for i in range(count) if i not in silent]
                keys = [keys[i] for i in which]
                areas = [self._replies[48 * i : 48 * i + 16 * self._vectors[i]].tobytes() for i in which]
                sizes = [sum(self._siov[6 * i + 1 : 6 * i + 2 * self._vectors[i] : 2].tolist()) for i in which]
            if self.sender.grouped(keys, sizes, areas):
                return
        self.sender.each(self._send_at, count, silent)
