"""Connections that are opened at a constant rate and closed at once, from a window of source ports: what runs out of ports.

Who closes first keeps the port in TIME-WAIT (RFC 9293 section 3.3.2).  Experiments do it where they stand; the host
`client`, where ``tcp_tw_reuse`` is 1, does it on request (`waterfall.agent`).
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
#: What an attempt says that found every port of its window taken.
NO_PORT = "no port left"


class Attempt(NamedTuple):
    """One connection that was to be made: seconds since the start, and what went wrong, if anything."""

    intended: float
    begun: float
    error: str


@dataclass(frozen=True, slots=True)
class Churn:
    """What is to be done."""

    #: IPv4 address and port.
    to: tuple[str, int]
    #: Connections per second, and for how many seconds.
    rate: float
    seconds: float
    #: First and last source port.
    window: tuple[int, int]
    #: Source addresses, taken in turn; empty: the route's.
    sources: Sequence[str] = ()


async def connect(to: tuple[str, int], source: Source) -> socket.socket:
    """Return a socket that is connected from *source*.

    Raises:
        OSError: EADDRNOTAVAIL when no port is left, or what else can go wrong.
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
    """Return the words for what went wrong."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if error.errno == errno.EADDRNOTAVAIL:
        return NO_PORT
    return os.strerror(error.errno) if error.errno else str(error)  # asyncio puts words of its own into strerror


async def churn(order: Churn) -> list[Attempt]:
    """Open and close connections as ordered; return the attempts by their intended start."""
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

    origins = [Source(source, order.window) for source in order.sources or (None,)]
    async with asyncio.TaskGroup() as group:
        for number in range(int(order.seconds * order.rate)):
            intended = number / order.rate
            await asyncio.sleep(max(0.0, began + intended - time.monotonic()))  # until its time
            group.create_task(attempt(intended, origins[number % len(origins)]))
    return sorted(attempts)
