"""Connection churn: connections opened at a constant rate from a range of source ports and closed immediately.

It exhausts the source ports, because the side that closes first keeps its port in TIME-WAIT (RFC 9293 section 3.3.2).
Experiments run churn on their own host.  On the host `client`, where ``tcp_tw_reuse`` is 1, `waterfall.agent` runs it
on request.
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

#: Timeout of one connection attempt, in seconds.
TIMEOUT = 5.0
#: Error text of an attempt that failed because all source ports were in use.
NO_PORT = "no port left"


class Attempt(NamedTuple):
    """One connection attempt: intended and actual start in seconds since the churn began, and the error or ""."""

    intended: float
    begun: float
    error: str


@dataclass(frozen=True, slots=True)
class Churn:
    """The parameters of one run of connection churn."""

    #: IPv4 address and port of the server.
    to: tuple[str, int]
    #: Number of connections per second.
    rate: float
    #: Duration in seconds.
    seconds: float
    #: First and last source port, both inclusive.
    window: tuple[int, int]
    #: Source addresses, used in turn; if empty, the kernel selects the address by route.
    sources: Sequence[str] = ()


async def connect(to: tuple[str, int], source: Source) -> socket.socket:
    """Open a connection to *to* from *source* and return its socket.

    Raises:
        OSError: EADDRNOTAVAIL if no source port is free, or another error of the connection attempt.
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
    """Return a short description of a failed connection attempt."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if error.errno == errno.EADDRNOTAVAIL:
        return NO_PORT
    # asyncio replaces the error's strerror with its own text, so derive the description from errno.
    return os.strerror(error.errno) if error.errno else str(error)


async def churn(order: Churn) -> list[Attempt]:
    """Run the churn; return its connection attempts in order of their intended start."""
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
            await asyncio.sleep(max(0.0, began + intended - time.monotonic()))  # sleeps until the intended start
            group.create_task(attempt(intended, sources[number % len(sources)]))
    return sorted(attempts)
