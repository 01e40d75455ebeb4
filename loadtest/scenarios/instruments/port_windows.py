"""Connections at a constant rate, each arm from a window of source ports of its own: what `time-wait` measures with.

A window per socket (IP_LOCAL_PORT_RANGE, ip(7)) makes seconds of what takes half a minute with Linux's 28,232 ports, and
spares whatever else runs on this host.
"""

import asyncio
import errno
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from linuxnet import sock_diag
from linuxnet.source_ports import Source
from waterfall.churn import NO_PORT, TIMEOUT, cause, connect
from wireformat.http1 import HttpError, get
from wireformat.http1_reader import ResponseReader

HOST, PORT, OTHER_PORT = "www.example.com", 80, 443
REQUEST = get(HOST, "/whoami")
LAST_REQUEST = get(HOST, "/whoami", "Connection: close")
#: Seconds between two counts of the sockets in TIME-WAIT.
COUNTING = 0.25


@dataclass(slots=True)
class Arm:
    """One way to make connections, and what became of them."""

    name: str
    rate: float
    #: First and last port.
    window: tuple[int, int]
    #: client, server or abort (a reset instead of a goodbye).
    closes: str = "client"
    #: Ports of the server, in turn.
    to: tuple[int, ...] = (PORT,)
    #: Requests on one connection; 0: none, it is opened and closed.
    uses: int = 0
    #: (intended, begun, error) of each attempt; seconds since the start.
    attempts: list[tuple[float, float, str]] = field(default_factory=list)
    #: (second, sockets in TIME-WAIT) within the window.
    waiting: list[tuple[float, int]] = field(default_factory=list)

    @property
    def ports(self) -> int:
        """How many connections there can be at a time: one per port and destination."""
        return (self.window[1] - self.window[0] + 1) * len(self.to)

    @property
    def exhausted_at(self) -> float | None:
        """The second in which no port was left for the first time."""
        return next((intended for intended, _, error in self.attempts if error == NO_PORT), None)

    def succeeded(self, begin: float, end: float) -> int:
        """Count attempts of that time that went well."""
        return sum(1 for intended, _, error in self.attempts if begin <= intended < end and not error)

    def __contains__(self, port: int) -> bool:
        """Return whether *port* is one of this arm's."""
        return self.window[0] <= port <= self.window[1]


class Drive:
    """Drives arms at the same time; attempts and counts go into each arm, in seconds since `began`."""

    def __init__(self, arms: Mapping[str, Arm], address: str, seconds: float) -> None:
        self._arms, self._address, self._seconds = arms, address, seconds
        self._began = time.monotonic()

    async def run(self) -> None:
        """Begin attempts when their schedules say; count what waits meanwhile."""
        counting = asyncio.create_task(self._count())
        try:
            await asyncio.gather(*(self._drive(arm) for arm in self._arms.values()))
        finally:
            counting.cancel()

    async def _drive(self, arm: Arm) -> None:
        """Begin attempts when the schedule says; wait for those under way."""
        under_way: set[asyncio.Task[None]] = set()
        kept: list[_Kept] = []
        for number in range(int(self._seconds * arm.rate)):
            intended = number / arm.rate
            await asyncio.sleep(max(0.0, self._began + intended - time.monotonic()))  # until its time
            to = (self._address, arm.to[number % len(arm.to)])
            task = asyncio.create_task(self._attempt(arm, to, intended, kept))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        if under_way:
            await asyncio.wait(under_way, timeout=TIMEOUT)
        for each in kept:
            each.sock.close()

    async def _attempt(self, arm: Arm, to: tuple[str, int], intended: float, kept: "list[_Kept]") -> None:
        begun, error = time.monotonic() - self._began, ""
        try:
            async with asyncio.timeout(TIMEOUT):
                await (_use(arm, to, kept) if arm.uses else _open_and_close(arm, to))
        except OSError as refused:
            error = cause(refused)
        arm.attempts.append((intended, begun, error))

    async def _count(self) -> None:
        while True:
            now = time.monotonic() - self._began
            ports = Counter(arm.name for port in waiting_ports() for arm in self._arms.values() if port in arm)
            for arm in self._arms.values():
                arm.waiting.append((now, ports[arm.name]))
            await asyncio.sleep(COUNTING)  # from count to count


def waiting_ports(*states: str) -> Iterable[int]:
    """Return our port of each socket that is in TIME-WAIT, or in one of *states*."""
    return (each.local[1] for each in sock_diag.sockets(*(states or ("TIME-WAIT",))))


@dataclass(slots=True)
class _Kept:
    """A connection that is kept, and how often it was used."""

    sock: socket.socket
    uses: int = 0


async def _open_and_close(arm: Arm, to: tuple[str, int]) -> None:
    loop = asyncio.get_running_loop()
    sock = await connect(to, Source(ports=arm.window))
    try:
        if arm.closes == "server":
            await loop.sock_sendall(sock, LAST_REQUEST)
            while await loop.sock_recv(sock, 65536):
                pass
        elif arm.closes == "abort":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        sock.close()


async def _use(arm: Arm, to: tuple[str, int], kept: list[_Kept]) -> None:
    """Send one request over a connection that is there, or over a new one; close it after so many."""
    loop = asyncio.get_running_loop()
    chosen = kept.pop() if kept else _Kept(await connect(to, Source(ports=arm.window)))
    chosen.uses += 1
    last = chosen.uses >= arm.uses
    try:
        await loop.sock_sendall(chosen.sock, LAST_REQUEST if last and arm.closes == "server" else REQUEST)
        await _answer(chosen.sock, until_closed=last and arm.closes == "server")
    except BaseException:
        chosen.sock.close()
        raise
    if last:
        with suppress(OSError):
            chosen.sock.close()
    else:
        kept.append(chosen)


async def _answer(sock: socket.socket, *, until_closed: bool) -> None:
    """Read one whole response: octets left unread would turn our close into a reset, and spare us TIME-WAIT."""
    loop = asyncio.get_running_loop()
    response = ResponseReader()
    while until_closed or not response.complete:
        data = await loop.sock_recv(sock, 65536)
        if not data:
            if until_closed and response.head_complete:
                return
            raise ConnectionResetError(errno.ECONNRESET, "closed by the server")
        try:
            response.feed(data)
        except HttpError as error:
            raise OSError(errno.EPROTO, str(error)) from None
