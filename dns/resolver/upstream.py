"""Asking one server: a fresh socket and port per query, TCP when the answer is truncated (RFC 5452, RFC 7766)."""

import asyncio
import contextlib
import errno
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from resolver.message import MalformedError, Message, parse_reply, query
from resolver.servers import HOLD_DOWN, Servers
from telemetry import log

logger = log.get("resolver")

#: Seconds to wait for a server whose round-trip time is not known.
FIRST_TIMEOUT = 0.8
#: Shortest and longest wait in seconds; between them it is a multiple of the smoothed round-trip time.
MIN_TIMEOUT, MAX_TIMEOUT = 0.3, 3.0
RTT_FACTOR = 4.0
#: Errors that say something of the server or the way to it; others, as EMFILE, only of ourselves.
NO_WAY = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})

_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply and what it cost."""

    message: Message
    rtt_ms: float
    transport: str
    bytes_sent: int
    bytes_received: int


class Upstream:
    """Asks name servers and remembers what that was like."""

    def __init__(self, port: int = 53, now: Callable[[], float] = time.monotonic) -> None:
        """Make one; *port* differs from 53 only where servers stand on loopback; *now* gives seconds that never go back."""
        self.port = port
        self.servers = Servers()
        self._now = now

    def timeout(self, address: str, tries: int) -> float:
        """Return the seconds to wait for *address* when it was asked *tries* times in vain."""
        known = self.servers.srtt_ms(address)
        base = FIRST_TIMEOUT if known is None else max(MIN_TIMEOUT, RTT_FACTOR * known / 1000)
        return min(MAX_TIMEOUT, base * float(2**tries))

    async def ask(self, address: str, qname: str, qtype: str, tries: int) -> Reply:
        """Return the reply of *address*.

        Raises:
            TimeoutError: none came in time.
            OSError: the server refuses, or there is no way to it.
            MalformedError: over TCP, something else came.
        """
        wire = query(_random.getrandbits(16), qname, qtype)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.timeout(address, tries)):
                message, received = await self._udp(wire, address)
        except OSError as error:
            theirs = isinstance(error, TimeoutError) or error.errno in NO_WAY
            if theirs and self.servers.unanswered(address, self._now()):
                logger.warning(
                    "server_silent", address=address, last_for_s=HOLD_DOWN, reason=error.strerror or "time-out"
                )
            raise
        rtt_ms = (time.perf_counter() - began) * 1000
        self.servers.answered(address, rtt_ms)
        if not message.truncated:
            return Reply(message, rtt_ms, "udp", len(wire), received)
        async with asyncio.timeout(3 * self.timeout(address, tries)):
            message, more = await self._tcp(wire, address)
        rtt_ms = (time.perf_counter() - began) * 1000
        return Reply(message, rtt_ms, "tcp", 2 * len(wire) + 2, received + more)

    async def _udp(self, wire: bytes, address: str) -> tuple[Message, int]:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _Datagrams(wire), remote_addr=(address, self.port)
        )
        try:
            transport.sendto(wire)
            return await protocol.reply
        finally:
            transport.close()

    async def _tcp(self, wire: bytes, address: str) -> tuple[Message, int]:
        reader, writer = await asyncio.open_connection(address, self.port)
        try:
            writer.write(struct.pack("!H", len(wire)) + wire)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            received = await reader.readexactly(length)
        except asyncio.IncompleteReadError:
            raise ConnectionError(f"{address} closed in the middle of an answer") from None
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return parse_reply(wire, received), length + 2


class _Datagrams(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers *wire*; forgeries are ignored, not believed."""

    def __init__(self, wire: bytes) -> None:
        self.reply: asyncio.Future[tuple[Message, int]] = asyncio.get_running_loop().create_future()
        self._wire = wire

    def datagram_received(self, data: bytes, addr: tuple[str | None, int]) -> None:  # noqa: ARG002 - the protocol's shape
        if not self.reply.done():
            with contextlib.suppress(MalformedError):
                self.reply.set_result((parse_reply(self._wire, data), len(data)))

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)
