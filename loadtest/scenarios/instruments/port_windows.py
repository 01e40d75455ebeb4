"""Opens connections at a constant rate, each arm from its own window of source ports (scenario `time-wait`).

A window (IP_LOCAL_PORT_RANGE, ip(7)) is exhausted within seconds, whereas Linux's 28,232 default ports would last half
a minute.  Ports outside the windows remain available to other programs on this host.
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
from waterfall.churn import NO_PORT, TIMEOUT, Attempt, cause, connect
from wireformat.http1 import HttpError, get
from wireformat.http1_reader import ResponseReader

HOST, PORT, OTHER_PORT = "www.example.com", 80, 443
REQUEST = get(HOST, "/whoami")
LAST_REQUEST = get(HOST, "/whoami", "Connection: close")
#: Interval between two counts of TIME-WAIT sockets, in seconds.
COUNTING = 0.25


@dataclass(slots=True)
class Arm:
    """One way to make connections, and the outcome of each attempt."""

    name: str
    #: Connection attempts per second; with `uses`, requests per second.
    rate: float
    #: First and last source port.
    window: tuple[int, int]
    #: The side that closes first: ``client`` or ``server``; ``abort`` if the client sends a reset.
    closes: str = "client"
    #: Destination ports on the server, used in turn.
    to: tuple[int, ...] = (PORT,)
    #: Requests per connection; 0 if connections are closed without a request.
    uses: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    #: Samples of (second, number of TIME-WAIT sockets in the window).
    waiting: list[tuple[float, int]] = field(default_factory=list)

    @property
    def ports(self) -> int:
        """Maximum number of simultaneous connections: one per source port and destination."""
        return (self.window[1] - self.window[0] + 1) * len(self.to)

    @property
    def exhausted_at(self) -> float | None:
        """Time in seconds of the first attempt that found no free port; None if every attempt found one."""
        return next((each.intended for each in self.attempts if each.error == NO_PORT), None)

    def succeeded(self, begin: float, end: float) -> int:
        """Return the number of successful attempts that were scheduled between two times, in seconds."""
        return sum(1 for each in self.attempts if begin <= each.intended < end and not each.error)

    def __contains__(self, port: int) -> bool:
        """Return whether *port* is in the arm's window."""
        return self.window[0] <= port <= self.window[1]


class Drive:
    """Runs several arms at the same time and stores their attempts and socket counts.

    All times are seconds since the start.
    """

    def __init__(self, arms: Mapping[str, Arm], address: str, seconds: float) -> None:
        self._arms, self._address, self._seconds = arms, address, seconds
        self._began = time.monotonic()

    async def run(self) -> None:
        """Make all attempts on schedule, and count TIME-WAIT sockets at the same time."""
        counting = asyncio.create_task(self._count())
        try:
            await asyncio.gather(*(self._drive(arm) for arm in self._arms.values()))
        finally:
            counting.cancel()

    async def _drive(self, arm: Arm) -> None:
        """Start the attempts of one arm on schedule, then wait for the pending ones."""
        pending: set[asyncio.Task[None]] = set()
        kept: list[_Kept] = []
        for number in range(int(self._seconds * arm.rate)):
            intended = number / arm.rate
            await asyncio.sleep(max(0.0, self._began + intended - time.monotonic()))  # wait until the scheduled start
            to = (self._address, arm.to[number % len(arm.to)])
            task = asyncio.create_task(self._attempt(arm, to, intended, kept))
            pending.add(task)
            task.add_done_callback(pending.discard)
        if pending:
            await asyncio.wait(pending, timeout=TIMEOUT)
        for each in kept:
            each.sock.close()

    async def _attempt(self, arm: Arm, to: tuple[str, int], intended: float, kept: "list[_Kept]") -> None:
        begun, error = time.monotonic() - self._began, ""
        try:
            async with asyncio.timeout(TIMEOUT):
                await (_use(arm, to, kept) if arm.uses else _open_and_close(arm, to))
        except OSError as failure:
            error = cause(failure)
        arm.attempts.append(Attempt(intended, begun, error))

    async def _count(self) -> None:
        while True:
            now = time.monotonic() - self._began
            ports = Counter(arm.name for port in waiting_ports() for arm in self._arms.values() if port in arm)
            for arm in self._arms.values():
                arm.waiting.append((now, ports[arm.name]))
            await asyncio.sleep(COUNTING)  # polling interval for counting sockets


def waiting_ports(*states: str) -> Iterable[int]:
    """Return the local port of each socket in one of *states* (default: TIME-WAIT)."""
    return (each.local[1] for each in sock_diag.sockets(*(states or ("TIME-WAIT",))))


@dataclass(slots=True)
class _Kept:
    """An open connection and the number of requests that it has carried."""

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
    """Send one request over an open or a new connection, and close the connection after its last request."""
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
    """Read a complete response; with unread bytes, close() would send a reset, and there would be no TIME-WAIT."""
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
