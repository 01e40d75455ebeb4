"""Responses of the traps: a correct one, and others with one defect each in HTTP or in the connection."""

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

#: Body of every correct response.
BODY = b"You have reached the end of this test.\n"
#: How long a stalling trap keeps a connection open, in seconds; longer than any client should wait.
STALL = 120.0
#: Number of bytes after which the trap with the endless head stops sending.
ENDLESS = 64 << 20
#: Value of the Retry-After field, in seconds.
RETRY_AFTER = 2
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"


@dataclass(slots=True)
class Visit:
    """Connections and requests that reached a trap since its last reset."""

    connections: int = 0
    #: Arrival times of requests, in seconds on the monotonic clock.
    requests: list[float] = field(default_factory=list)


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Visit], Awaitable[None]]


async def _request(reader: asyncio.StreamReader, visit: Visit) -> None:
    """Read the head of a request and record its arrival time; raise `EOFError` if no complete head arrives."""
    await reader.readuntil(b"\r\n\r\n")
    visit.requests.append(time.monotonic())


def fixed(*parts: bytes) -> Answer:
    """Return an answer that reads a request, sends *parts* unchanged, and closes the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        await _request(reader, visit)
        for part in parts:
            writer.write(part)
            await writer.drain()

    return answer


def length(number: int) -> bytes:
    """Return a Content-Length field of *number* bytes, followed by the empty line that ends a head."""
    return b"Content-Length: %d\r\n\r\n" % number


good = fixed(HEAD + length(len(BODY)) + BODY)


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Read a request and send nothing."""
    await _request(reader, visit)
    await asyncio.sleep(STALL)  # stalling is the defect of this trap
    del writer


async def half_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Send half of a response body, then nothing."""
    await _request(reader, visit)
    writer.write(HEAD + length(2 * len(BODY)) + BODY)
    await writer.drain()
    await asyncio.sleep(STALL)  # stalling is the defect of this trap


async def endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Send header fields until the client closes the connection."""
    await _request(reader, visit)
    writer.write(HEAD)
    line = b"".join(b"X-Filler-%d: %s\r\n" % (n, b"x" * 1000) for n in range(64))
    for _ in range(ENDLESS // len(line)):
        writer.write(line)
        await writer.drain()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Answer a request by resetting the TCP connection."""
    await _request(reader, visit)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def truncated(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Send a body delimited by the end of the connection, then close TCP without a close_notify alert."""
    await _request(reader, visit)
    writer.write(HEAD + b"\r\n" + BODY)
    await writer.drain()
    await asyncio.sleep(0.05)  # gives the transport time to send its buffer before TCP is closed
    with suppress(OSError):
        writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Accept a connection, but neither read nor send anything."""
    del reader, writer, visit
    await asyncio.sleep(STALL)  # stalling is the defect of this trap


def raw(data: bytes, *, stall: bool = False) -> Answer:
    """Return an answer that waits for data from the client, sends *data*, and then closes or stalls."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        del visit
        await reader.read(1)
        writer.write(data)
        await writer.drain()
        if stall:
            await asyncio.sleep(STALL)  # stalling is the defect of this trap

    return answer


async def busy_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Answer the first request with status 503 and Retry-After, and later requests correctly."""
    await _request(reader, visit)
    head = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nConnection: close\r\n" % RETRY_AFTER
    writer.write((head if len(visit.requests) == 1 else HEAD) + length(len(BODY)) + BODY)
    await writer.drain()


async def loop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
    """Redirect each request to a new path, without end."""
    await _request(reader, visit)
    head = b"HTTP/1.1 302 Found\r\nLocation: /%d\r\nConnection: close\r\n" % len(visit.requests)
    writer.write(head + length(0))
    await writer.drain()
