"""Queries to name servers, each from a new socket and port (RFC 5452); with TCP after a truncated or suspect reply."""

import asyncio
import contextlib
import errno
import struct
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from dnsmessage import Message, MismatchError, Name, RemoteError
from dnsmessage.message import BADCOOKIE, BADVERS, FORMERR, NOERROR, NOTIMP
from resolver.exchange import Received, Sent, SuspectError, query
from resolver.servers import COOLDOWN, Servers
from telemetry import log

logger = log.get("resolver")
T = TypeVar("T")

#: Time-out for a server with an unknown round-trip time, in seconds.
FIRST_TIMEOUT = 0.8
#: Minimum and maximum time-out, in seconds.
MIN_TIMEOUT, MAX_TIMEOUT = 0.3, 3.0
#: Factor by which the smoothed round-trip time is multiplied to obtain the time-out, within the bounds above.
RTT_FACTOR = 4.0
#: Errors caused by the server or by the path to the server; other errors, such as EMFILE, are caused by this host.
UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH})
#: Errors that mean that descriptors or buffers are exhausted.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EAGAIN})
#: Delay before a retry after one of the errors in `EXHAUSTED`, in seconds.
EXHAUSTED_RETRY = 0.02


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

    def __init__(self, port: int = 53, now: Callable[[], float] = time.monotonic, *, mixed_case: bool = True) -> None:
        """Create a client.

        Args:
            port: destination port; differs from 53 only for servers on loopback.
            now: returns monotonic seconds.
            mixed_case: whether names are sent in random case, which a reply must repeat (0x20).
        """
        self.port, self._mixed_case = port, mixed_case
        self.servers = Servers()
        self._now = now
        self._in_flight: dict[tuple[str, Name, int], asyncio.Task[Reply]] = {}

    def timeout(self, address: str, tries: int) -> float:
        """Return the time-out for a query to *address*, in seconds; each of *tries* earlier time-outs doubles it."""
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
            task.exception()  # mark the exception as retrieved, even if all waiting tasks were cancelled

    async def _ask(self, address: str, qname: Name, qtype: int, tries: int) -> Reply:
        def made(*, edns: bool) -> Sent:
            return query(qname, qtype, self.servers.get(address), edns=edns, mixed_case=self._mixed_case)

        edns = self.servers.speaks_edns(address)
        reply = await self._exchange(address, made(edns=edns), tries)
        for tcp in (False, True):  # retry with the new cookie, then over TCP (RFC 7873 section 5.3)
            if reply.message.rcode == BADCOOKIE:
                reply = await self._exchange(address, made(edns=edns), tries, tcp=tcp)
        if not edns or reply.message.rcode not in {FORMERR, NOTIMP, BADVERS}:
            return reply
        plain = await self._exchange(address, made(edns=False), tries)
        if plain.message.rcode == NOERROR:
            self.servers.without_edns(address)
        return plain

    async def _exchange(self, address: str, sent: Sent, tries: int, *, tcp: bool = False) -> Reply:
        """Send a query over UDP, and again over TCP after a truncated or suspect reply; if *tcp*, use only TCP."""
        began, size, received = time.perf_counter(), len(sent.wire), 0
        if not tcp:
            try:
                async with asyncio.timeout(self.timeout(address, tries)):
                    reply, received = await self._udp(sent, address)
            except SuspectError as error:
                logger.debug("reply_suspect", address=address, reason=str(error))
            except RemoteError:
                self.servers.answered(address, (time.perf_counter() - began) * 1000)
                raise
            except OSError as error:
                self._failed(address, error)
                raise
            else:
                rtt_ms = (time.perf_counter() - began) * 1000
                self.servers.answered(address, rtt_ms)
                self._learn(address, reply)
                if not reply.message.truncated:
                    return Reply(reply.message, rtt_ms, "udp", size, received)
            size *= 2
        async with asyncio.timeout(3 * self.timeout(address, tries)):
            reply, more = await self._tcp(sent, address)
        known = self.servers.get(address)
        known.copies_case = known.copies_case and reply.copied_case
        known.server_cookie = b"" if sent.expects_cookie else known.server_cookie
        self._learn(address, reply)
        return Reply(reply.message, (time.perf_counter() - began) * 1000, "tcp", size + 2, received + more)

    def _learn(self, address: str, reply: Received) -> None:
        if reply.server_cookie:
            self.servers.get(address).server_cookie = reply.server_cookie

    def _failed(self, address: str, error: OSError) -> None:
        theirs = isinstance(error, TimeoutError) or error.errno in UNREACHABLE
        if theirs and self.servers.timed_out(address, self._now()):
            reason = error.strerror or "time-out"
            logger.warning("server_ejected", address=address, cooldown_s=COOLDOWN, reason=reason)

    async def _udp(self, sent: Sent, address: str) -> tuple[Received, int]:
        loop = asyncio.get_running_loop()
        transport, protocol = await _patiently(
            lambda: loop.create_datagram_endpoint(lambda: _Datagrams(sent), remote_addr=(address, self.port))
        )
        try:
            transport.sendto(sent.wire)
            return await protocol.reply
        finally:
            transport.close()

    async def _tcp(self, sent: Sent, address: str) -> tuple[Received, int]:
        reader, writer = await _patiently(lambda: asyncio.open_connection(address, self.port))
        try:
            writer.write(struct.pack("!H", len(sent.wire)) + sent.wire)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            received = await reader.readexactly(length)
        except asyncio.IncompleteReadError:
            raise ConnectionError(f"{address} closed in the middle of an answer") from None
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return sent.read(received, trusted=True), length + 2


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
    """Receives the datagram that replies to *sent* and ignores datagrams that may be forged."""

    def __init__(self, sent: Sent) -> None:
        self.reply: asyncio.Future[tuple[Received, int]] = asyncio.get_running_loop().create_future()
        self._sent = sent

    def datagram_received(self, data: bytes, addr: tuple[str | None, int]) -> None:  # noqa: ARG002 - asyncio passes *addr*
        if self.reply.done():
            return
        try:
            self.reply.set_result((self._sent.read(data), len(data)))
        except MismatchError:
            return
        except RemoteError as error:  # ID and question match, so the malformed reply is from the server
            self.reply.set_exception(error)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)
