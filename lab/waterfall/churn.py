"""Opens connections at a constant rate from a range of source ports and closes them at once, which exhausts the ports.

The side that closes first keeps the port in TIME-WAIT (RFC 9293 section 3.3.2).  Experiments run this on their own host; on
the host `client`, where ``tcp_tw_reuse`` is 1, `waterfall.agent` runs it on request.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from linuxnet.source_ports import Source

#: Seconds that an attempt may take.
TIMEOUT = 5.0
#: Error of an attempt that found all ports in use.
NO_PORT = "no port left"


class Attempt(NamedTuple):
    """One attempt to connect: intended and actual start in seconds, and the error, if any."""

    intended: float
    begun: float
    error: str


@dataclass(frozen=True, slots=True)
class Churn:
    """The parameters of a churn."""

    #: IPv4 address and port.
    to: tuple[str, int]
    #: Connections per second, and seconds.
    rate: float
    seconds: float
    #: First and last source port.
    window: tuple[int, int]
    #: Source addresses, used in turn; if empty, the route chooses.
    sources: Sequence[str] = ()


async def connect(to: tuple[str, int], source: Source) -> socket.socket:
    """Return a socket connected to *to* from *source*.

    Raises:
        OSError: EADDRNOTAVAIL if no port is left, or any other failure.
    """
    sock = socket.socket()
    try:
        sock.setblocking(False)
        source.apply(sock)
        await asyncio.get_running_loop().sock_connect(sock, to)
    except BaseException:
        sock.close()
        raise
    return sock


def cause(error: OSError) -> str:
    """Return the error in a few words."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if error.errno == errno.EADDRNOTAVAIL:
        return NO_PORT
    return os.strerror(error.errno) if error.errno else str(error)  # asyncio sets its own strerror


async def churn(order: Churn) -> list[Attempt]:
    """Open and close connections; return the attempts in order of their intended start."""
    began = time.monotonic()
    attempts: list[Attempt] = []

    async def attempt(intended: float, source: Source) -> None:
        begun, error = time.monotonic() - began, ""
        try:
            async with asyncio.timeout(TIMEOUT):
                (await connect(order.to, source)).close()
        except OSError as refused:
            error = cause(refused)
        attempts.append(Attempt(intended, begun, error))

    sources = [Source(address, order.window) for address in order.sources or (None,)]
    async with asyncio.TaskGroup() as group:
        for number in range(int(order.seconds * order.rate)):
            intended = number / order.rate
            await asyncio.sleep(max(0.0, began + intended - time.monotonic()))  # until the intended start
            group.create_task(attempt(intended, sources[number % len(sources)]))
    return sorted(attempts)
