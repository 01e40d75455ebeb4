"""How traps answer a request: correctly, or with one defect on the level of HTTP or of the connection."""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

#: Body of every correct answer.
BODY = b"You have reached the end of this test.\n"
#: Time in seconds for which a trap that stalls keeps a connection open; longer than any client should wait.
STALL = 120.0
#: Size of an endless head at which the trap itself gives up, in bytes.
ENDLESS = 64 << 20
#: Value of Retry-After in seconds.
RETRY_AFTER = 2
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"


@dataclass(slots=True)
class Visit:
    """What arrived at one trap since its last reset."""

    connections: int = 0
    #: Arrival times of requests, in seconds on the monotonic clock.
    requests: list[float] = field(default_factory=list)


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Visit], Awaitable[None]]


async def _request(reader: asyncio.StreamReader, visit: Visit) -> None:
    """Read the head of a request and record its arrival; raise `EOFError` if there is none."""
    await reader.readuntil(b"\r\n\r\n")
    visit.requests.append(time.monotonic())


def fixed(*parts: bytes) -> Answer:
    """Return an answer that sends *parts* as they are, and closes the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await _request(reader, visit)
        for part in parts:
            writer.write(part)
            await writer.drain()

    return answer


def length(number: int) -> bytes:
    """Return the header field Content-Length and the end of a head."""
    return b"Content-Length: %d\r\n\r\n" % number


good = fixed(HEAD + length(len(BODY)) + BODY)


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Read a request and send nothing."""
    await _request(reader, visit)
    await asyncio.sleep(STALL)  # the defect of this trap
    del writer


async def half_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Send half of a response, then nothing."""
    await _request(reader, visit)
    writer.write(HEAD + length(2 * len(BODY)) + BODY)
    await writer.drain()
    await asyncio.sleep(STALL)  # the defect of this trap


async def endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Send header fields until the client closes the connection."""
    await _request(reader, visit)
    writer.write(HEAD)
    line = b"".join(b"X-Filler-%d: %s\r\n" % (n, b"x" * 1000) for n in range(64))
    for _ in range(ENDLESS // len(line)):
        writer.write(line)
        await writer.drain()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Answer a request with a TCP reset."""
    await _request(reader, visit)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def truncated(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """End a body whose end is the end of the connection by closing TCP, without the close_notify of TLS."""
    await _request(reader, visit)
    writer.write(HEAD + b"\r\n" + BODY)
    await writer.drain()
    await asyncio.sleep(0.05)  # lets the transport send what it has before the connection ends below TLS
    with suppress(OSError):
        writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Accept a connection and neither read nor send."""
    del reader, writer, visit
    await asyncio.sleep(STALL)  # the defect of this trap


def raw(data: bytes, *, stall: bool = False) -> Answer:
    """Return an answer that sends *data* once the client has sent something; then closes, or stalls."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        del visit
        await reader.read(1)
        writer.write(data)
        await writer.drain()
        if stall:
            await asyncio.sleep(STALL)  # the defect of this trap

    return answer


async def busy_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Answer the first request with 503 and Retry-After, later ones correctly."""
    await _request(reader, visit)
    head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nConnection: close\r\n" % RETRY_AFTER
    writer.write((head if len(visit.requests) == 1 else HEAD) + length(len(BODY)) + BODY)
    await writer.drain()


async def loop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Redirect each request to the next of infinitely many paths."""
    await _request(reader, visit)
    head = b"HTTP/1.1 302 Found\r\nLocation: /%d\r\nConnection: close\r\n" % len(visit.requests)
    writer.write(head + length(0))
    await writer.drain()
