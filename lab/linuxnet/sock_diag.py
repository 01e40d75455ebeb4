"""TCP sockets of the current network namespace, read from the kernel by NETLINK_SOCK_DIAG (sock_diag(7)).

The kernel filters by state and port. No privileges are required. The result includes TIME_WAIT sockets, which belong to
no process.

A search walks the machine-wide hash table: 1.4 ms if the table is empty, plus 0.06 µs per non-matching socket and 4 µs
per match. Refreshing one known socket by its addresses takes 0.02 ms, independent of the table size.
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from linuxnet.tcp_info import STATES, parse, state_name

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
INET_DIAG_INFO = 2
#: struct inet_diag_req_v2 without the socket identity: family, protocol, extensions, padding, states.
_REQUEST = struct.Struct("=BBBBI")
#: struct inet_diag_sockid: ports and addresses in network byte order, interface, cookie.
_IDENTITY = struct.Struct("=2s2s16s16sI8s")
_NLMSG = struct.Struct("=IHHII")
#: struct inet_diag_msg without the identity: family, state, timer, retransmissions; then expiry, queues, UID, inode.
_MESSAGE = struct.Struct("=BBBB")
_QUEUES = struct.Struct("=IIIII")
_ANY = b"\0" * 16


class SockDiagError(Exception):
    """The kernel does not support sock_diag for TCP, or rejected the request."""


@dataclass(frozen=True, slots=True)
class Socket:
    """State of one TCP socket in this namespace."""

    state: str
    local: tuple[str, int]
    remote: tuple[str, int]
    #: Number of bytes in the receive queue.
    unread: int
    #: Number of bytes in the send queue, unsent or unacknowledged.
    unsent: int
    #: How long until the pending timer (retransmission, TIME_WAIT) expires, in milliseconds.
    expires_ms: int
    #: Selected fields of struct tcp_info; empty in TIME_WAIT, for which the kernel has no full socket.
    info: dict[str, int]
    #: The kernel's unique socket identifier; it distinguishes sockets that use the same ports one after the other.
    cookie: bytes = field(default=b"\xff" * 8, repr=False)

    def __str__(self) -> str:
        return "{}:{} {}:{}".format(*self.local, *self.remote)


def sockets(*states: str, local_port: int = 0, remote_port: int = 0, info: bool = False) -> Iterator[Socket]:
    """Yield the IPv4 TCP sockets in *states* (if none is given: all states except LISTEN and CLOSED).

    Args:
        states: names from `tcp_info.STATES`.
        local_port: local port to match; 0 matches any port.
        remote_port: remote port to match; 0 matches any port.
        info: whether to read TCP_INFO.

    Raises:
        SockDiagError: the kernel does not support sock_diag for TCP, or rejected the request.
    """
    wanted = states or tuple(s for s in STATES[1:] if s not in {"LISTEN", "CLOSED"})
    mask = sum(1 << STATES.index(state) for state in wanted)
    identity = _IDENTITY.pack(local_port.to_bytes(2, "big"), remote_port.to_bytes(2, "big"), _ANY, _ANY, 0, b"\xff" * 8)
    with _netlink() as netlink:
        netlink.send(_request(NLM_F_REQUEST | NLM_F_DUMP, mask, identity, info=info))
        while True:
            for kind, body in _messages(netlink.recv(1 << 17)):
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    raise SockDiagError(f"sock_diag answered with error {_errno(body)}")
                yield _parse(body)


def refresh(known: Iterable[Socket], *, info: bool = False) -> Iterator[Socket]:
    """Yield the current state of each socket in *known* that still exists, by direct look-up instead of a search.

    Raises:
        SockDiagError: the kernel does not support sock_diag for TCP.
    """
    with _netlink() as netlink:
        for each in known:
            ports = (port.to_bytes(2, "big") for _, port in (each.local, each.remote))
            addresses = (socket.inet_aton(host).ljust(16, b"\0") for host, _ in (each.local, each.remote))
            identity = _IDENTITY.pack(*ports, *addresses, 0, each.cookie)
            netlink.send(_request(NLM_F_REQUEST, 0, identity, info=info))
            (kind, body), *_ = _messages(netlink.recv(1 << 13))
            if kind != NLMSG_ERROR:  # ENOENT: the socket no longer exists; ESTALE: another socket uses its ports
                yield _parse(body)


def _netlink() -> socket.socket:
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
    except OSError as error:
        raise SockDiagError(f"no NETLINK_SOCK_DIAG: {error.strerror}") from None


def _request(flags: int, states: int, identity: bytes, *, info: bool) -> bytes:
    extensions = 1 << (INET_DIAG_INFO - 1) if info else 0
    body = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, extensions, 0, states) + identity
    return _NLMSG.pack(_NLMSG.size + len(body), SOCK_DIAG_BY_FAMILY, flags, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield the type and payload of each netlink message in *data*."""
    rest = memoryview(data)
    while len(rest) >= _NLMSG.size:
        length, kind, *_ = _NLMSG.unpack_from(rest)
        yield kind, rest[_NLMSG.size : length]
        rest = rest[(length + 3) & ~3 :]


def _errno(body: memoryview) -> int:
    (code,) = struct.unpack_from("=i", body)
    return -int(code)


def _parse(data: memoryview) -> Socket:
    _, state, _, _ = _MESSAGE.unpack_from(data)
    sport, dport, source, target, _, cookie = _IDENTITY.unpack_from(data, _MESSAGE.size)
    at = _MESSAGE.size + _IDENTITY.size
    expires, unread, unsent, _, _ = _QUEUES.unpack_from(data, at)
    return Socket(
        state_name(state),
        (socket.inet_ntoa(source[:4]), int.from_bytes(sport, "big")),
        (socket.inet_ntoa(target[:4]), int.from_bytes(dport, "big")),
        unread,
        unsent,
        expires,
        _attributes(data[at + _QUEUES.size :]),
        cookie,
    )


def _attributes(data: memoryview) -> dict[str, int]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return {}
        if kind == INET_DIAG_INFO:
            return parse(data[4:length])
        data = data[(length + 3) & ~3 :]
    return {}
