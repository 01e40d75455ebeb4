"""Queries to name servers: a new socket and port for each, and TCP if the reply is truncated (RFC 5452, RFC 7766)."""

import asyncio
import contextlib
import errno
import random
import struct
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from dnsmessage import Message, MismatchError, Name, RemoteError, decode_reply, encode_query
from dnsmessage.message import BADVERS, FORMERR, NOERROR, NOTIMP
from resolver.servers import COOLDOWN, Servers
from telemetry import log

logger = log.get("resolver")
T = TypeVar("T")

#: Time-out for a server with an unknown round-trip time, in seconds.
FIRST_TIMEOUT = 0.8
#: Minimum and maximum time-out in seconds; in between, it is `RTT_FACTOR` times the smoothed round-trip time.
MIN_TIMEOUT, MAX_TIMEOUT = 0.3, 3.0
RTT_FACTOR = 4.0
#: Errors that concern the server or the path to it; others, such as EMFILE, concern only this host.
UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})
#: Errors that mean the system is out of descriptors or buffers, and the delay before a retry, in seconds.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EAGAIN})
EXHAUSTED_RETRY = 0.02

_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply from a name server, with its round-trip time, transport and size."""

    message: Message
    rtt_ms: float
    transport: str
    bytes_sent: int
    bytes_received: int


class Upstream:
    """Sends queries to name servers and records round-trip times and failures."""

    def __init__(self, port: int = 53, now: Callable[[], float] = time.monotonic) -> None:
        """Create a client; *port* differs from 53 only for servers on loopback; *now* returns monotonic seconds."""
        self.port = port
        self.servers = Servers()
        self._now = now
        self._in_flight: dict[tuple[str, Name, int], asyncio.Task[Reply]] = {}

    def timeout(self, address: str, tries: int) -> float:
        """Return the time-out for a query to *address*, in seconds; it doubles with each earlier time-out (*tries*)."""
        known = self.servers.srtt_ms(address)
        base = FIRST_TIMEOUT if known is None else max(MIN_TIMEOUT, RTT_FACTOR * known / 1000)
        return min(MAX_TIMEOUT, base * float(2**tries))

    async def ask(self, address: str, qname: Name, qtype: int, tries: int) -> Reply:
        """Send a query to *address* and return the reply; concurrent identical queries share one exchange.

        Raises:
            TimeoutError: no reply arrived in time.
            OSError: the server is unreachable or refuses the query.
            RemoteError: the reply is malformed.
        """
        key = (address, qname, qtype)
        task = self._in_flight.get(key)
        if task is None:
            task = self._in_flight[key] = asyncio.create_task(self._ask(address, qname, qtype, tries))
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)

    def _done(self, key: tuple[str, Name, int], task: asyncio.Task[Reply]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # mark the exception as retrieved: all waiting tasks may be cancelled

    async def _ask(self, address: str, qname: Name, qtype: int, tries: int) -> Reply:
        edns = self.servers.speaks_edns(address)
        reply = await self._exchange(address, encode_query(_random.getrandbits(16), qname, qtype, edns=edns), tries)
        if not edns or reply.message.rcode not in {FORMERR, NOTIMP, BADVERS}:
            return reply
        wire = encode_query(_random.getrandbits(16), qname, qtype, edns=False)
        plain = await self._exchange(address, wire, tries)
        if plain.message.rcode == NOERROR:
            self.servers.without_edns(address)
        return plain

    async def _exchange(self, address: str, wire: bytes, tries: int) -> Reply:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.timeout(address, tries)):
                message, received = await self._udp(wire, address)
        except RemoteError:
            self.servers.answered(address, (time.perf_counter() - began) * 1000)
            raise
        except OSError as error:
            theirs = isinstance(error, TimeoutError) or error.errno in UNREACHABLE
            if theirs and self.servers.timed_out(address, self._now()):
                reason = error.strerror or "time-out"
                logger.warning("server_ejected", address=address, cooldown_s=COOLDOWN, reason=reason)
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
        transport, protocol = await _patiently(
            lambda: loop.create_datagram_endpoint(lambda: _Datagrams(wire), remote_addr=(address, self.port))
        )
        try:
            transport.sendto(wire)
            return await protocol.reply
        finally:
            transport.close()

    async def _tcp(self, wire: bytes, address: str) -> tuple[Message, int]:
        reader, writer = await _patiently(lambda: asyncio.open_connection(address, self.port))
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
        return decode_reply(wire, received), length + 2


async def _patiently(open_socket: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the result of *open_socket*; retry without limit while the system is out of descriptors or buffers."""
    while True:
        try:
            return await open_socket()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
        await asyncio.sleep(EXHAUSTED_RETRY)  # wait for another query to close its socket


class _Datagrams(asyncio.DatagramProtocol):
    """Receives the datagram that replies to *wire* and ignores datagrams that may be forged."""

    def __init__(self, wire: bytes) -> None:
        self.reply: asyncio.Future[tuple[Message, int]] = asyncio.get_running_loop().create_future()
        self._wire = wire

    def datagram_received(self, data: bytes, addr: tuple[str | None, int]) -> None:  # noqa: ARG002 - asyncio interface
        if self.reply.done():
            return
        try:
            self.reply.set_result((decode_reply(self._wire, data), len(data)))
        except MismatchError:
            return
        except RemoteError as error:  # ID and question match, so this is the server's own reply
            self.reply.set_exception(error)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)
