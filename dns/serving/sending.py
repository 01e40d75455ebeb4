"""Send a batch of responses with one `sendmmsg`, combining several responses to the same client into one message.

If many queries of a batch come from the same socket, for example that of a resolver or load balancer, their responses
are sent as a few large messages, which the kernel splits into datagrams as late as possible (UDP_SEGMENT, udp(7)).
All datagrams of a message have the same size, except for the last, which may be shorter. Clients see no difference.
"""

import ctypes
import errno
import functools
import socket
import struct
from array import array
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

from dnsmessage.message import PAYLOAD

#: Socket option and type of control message that set the size of the datagrams of one message (udp(7)).
UDP_SEGMENT = 103
#: Minimum number of responses in a batch, and minimum mean number of responses per client, for which UDP_SEGMENT is
#: used. With fewer, grouping costs more time than the kernel saves.
MIN_BATCH, MIN_PER_CLIENT = 8, 2
#: Size of a struct mmsghdr, and size of the iovec array of one response, in bytes.
_HEADER, _AREAS = 64, 64
#: Types of the control messages that contain the local address of a datagram (ip(7) and ipv6(7)).
IP_PKTINFO, IPV6_PKTINFO = 8, 50
#: Size of one control message with struct in_pktinfo (ip(7)), in bytes.
CONTROL = 32
#: A control message with UDP_SEGMENT, padded to 8 bytes.
_SEGMENT = struct.Struct("=QiiH6x")


class Block:
    """A memory block at a fixed address."""

    def __init__(self, size: int) -> None:
        self._buffer = ctypes.create_string_buffer(size)
        self.address = ctypes.addressof(self._buffer)
        self.view = memoryview(self._buffer).cast("B")


class Sender:
    """The sending side of one socket."""

    def __init__(self, sock: socket.socket, batch: int, *, wildcard: bool) -> None:
        """Allocate memory for *batch* responses; if *wildcard*, the keys of `grouped` contain source addresses."""
        self._fd = sock.fileno()
        #: Number of responses that the socket did not accept.
        self.dropped = 0
        self._sendmmsg = ctypes.PyDLL(None, use_errno=True).sendmmsg  # PyDLL keeps the GIL; the calls never block
        self._sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
        self._source = CONTROL if wildcard else 0
        self._memory = headers, self._areas, self._names, self._controls = (
            Block(batch * size) for size in (_HEADER, _AREAS, 16, self._source + _SEGMENT.size)
        )
        fields = headers.view.cast("Q")
        for i in range(batch):
            control = self._controls.address + (self._source + _SEGMENT.size) * i
            fields[8 * i : 8 * i + 6] = array("Q", [self._names.address + 16 * i, 16, 0, 0, control, 0])
        self._headers_at = headers.address
        self._areas_at, self._areas_counts, self._control_sizes = fields[2::8], fields[3::8], fields[5::8]
        #: Whether the kernel supports UDP_SEGMENT; a kernel that does not support it ignores the control message.
        self.segments = _supports_segments(sock)
        #: Whether `gains` returned True for the current batch.
        self.grouping = False

    def each(self, at: int, count: int, silent: Sequence[int] = ()) -> None:
        """Send the *count* messages whose headers start at the address *at*, except those at the indexes *silent*."""
        start = 0
        for end in (*silent, count):
            while start < end:
                sent = self._push(at + _HEADER * start, end - start)
                self.dropped += not sent  # the send buffer is full or the client unreachable
                start += sent or 1
            start = end + 1

    def gains(self, keys: Sequence[bytes]) -> bool:
        """Return whether `grouped` is faster than `each` for responses with these *keys*."""
        self.grouping = self.segments and len(keys) >= MIN_BATCH and MIN_PER_CLIENT * len(set(keys)) <= len(keys)
        return self.grouping

    def grouped(self, keys: Sequence[bytes], sizes: Sequence[int], areas: Sequence[bytes]) -> bool:
        """Send one or a few messages per client; return False, without sending, if a response is too large.

        Args:
            keys: the client of each response, as a struct sockaddr_in; on a wildcard socket also the control message
                with the source address of the response.
            sizes: size of each response in bytes.
            areas: memory areas of each response, as consecutive struct iovec.
        """
        if max(sizes) > PAYLOAD:
            return False
        clients: dict[bytes, list[bytes]] = defaultdict(list)
        if len(set(sizes)) == 1:
            for key, area in zip(keys, areas, strict=True):
                clients[key].append(area)
            failed = self._transmit([*clients], [sizes[0]] * len(clients), [*clients.values()], segment=True)
        else:
            failed = self._transmit(*_by_size(keys, sizes, areas), segment=True)
        if failed:  # for example, the route has a small MTU, or the network device cannot compute checksums
            self.segments = ctypes.get_errno() != errno.EIO
            rest = [(key, size, [area]) for key, size, row in failed for area in row]
            self.dropped += len(self._transmit(*zip(*rest, strict=True), segment=False))
        return True

    def _transmit(
        self, keys: Sequence[bytes], sizes: Sequence[int], rows: Sequence[list[bytes]], *, segment: bool
    ) -> list[tuple[bytes, int, list[bytes]]]:
        """Send one message per element of *rows*, a list of memory areas; return those that the socket rejected."""
        vectors, controls, names = list(map(b"".join, rows)), list(map(_segment, sizes)), keys
        if self._source:
            names, controls = (
                [key[:16] for key in keys],
                [key[16:] + each for key, each in zip(keys, controls, strict=True)],
            )
        for block, parts in ((self._areas, vectors), (self._names, names), (self._controls, controls)):
            data = b"".join(parts)
            block.view[: len(data)] = data
        count, lengths = len(keys), list(map(len, vectors))
        self._areas_at[:count] = array("Q", accumulate(lengths[:-1], initial=self._areas.address))
        self._areas_counts[:count] = array("Q", [length >> 4 for length in lengths])
        self._control_sizes[:count] = array("Q", [self._source + _SEGMENT.size * segment]) * count
        failed, start = [], 0
        while start < count:
            sent = self._push(self._headers_at + _HEADER * start, count - start)
            if not sent:
                failed.append((keys[start], sizes[start], rows[start]))
            start += sent or 1
        return failed

    def _push(self, at: int, count: int) -> int:
        """Send up to *count* messages; return how many the kernel accepted, 0 if it rejected the first one."""
        while (sent := int(self._sendmmsg(self._fd, at, count, socket.MSG_DONTWAIT))) < 0:
            if ctypes.get_errno() != errno.EINTR:
                return 0
        return sent


def _by_size(
    keys: Sequence[bytes], sizes: Sequence[int], areas: Sequence[bytes]
) -> tuple[Sequence[bytes], Sequence[int], Sequence[list[bytes]]]:
    """Group responses of different sizes into messages in which only the last datagram is shorter than the others."""
    clients: dict[bytes, list[int]] = defaultdict(list)
    for i in sorted(range(len(keys)), key=sizes.__getitem__, reverse=True):
        clients[keys[i]].append(i)
    messages: list[tuple[bytes, int, list[bytes]]] = []
    for key, order in clients.items():
        size, row = 0, list[bytes]()
        for i in order:
            if not size:
                size, row = sizes[i], []
                messages.append((key, size, row))
            row.append(areas[i])
            if sizes[i] < size:
                size = 0
    keys, sizes, rows = zip(*messages, strict=True)
    return keys, sizes, rows


@functools.cache  # at most 1,232 different sizes; each control message has 24 bytes
def _segment(size: int) -> bytes:
    """Return the control message that makes the kernel split a message into datagrams of *size* bytes."""
    return _SEGMENT.pack(18, socket.IPPROTO_UDP, UDP_SEGMENT, size)


def _supports_segments(sock: socket.socket) -> bool:
    try:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
    except OSError:  # UDP_SEGMENT exists since Linux 4.18
        return False
    return True


def send_later(sock: socket.socket, reply: bytes | bytearray, client: tuple[str, int], local: bytes) -> None:
    """Send one reply; its source address is the one in *local*, unless *local* is empty. Raise `OSError` on failure."""
    if local:
        ipv4 = sock.family == socket.AF_INET
        kind = (socket.IPPROTO_IP, IP_PKTINFO) if ipv4 else (socket.IPPROTO_IPV6, IPV6_PKTINFO)
        sock.sendmsg([reply], [(*kind, local)], 0, client)
    else:
        sock.sendto(reply, client)
