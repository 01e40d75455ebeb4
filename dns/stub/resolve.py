"""The stub resolver in two forms: `Stub` blocks, `AsyncStub` runs on asyncio.

Both query the servers in order and retry truncated replies over TCP. Each query uses a new connected socket with a port
chosen by the kernel, so datagrams from other addresses are never received (RFC 5452).
"""

import asyncio
import contextlib
import ipaddress
import random
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dnsmessage import Message
from stub.cache import Cache
from stub.errors import MalformedReplyError, NoAddress, NoSuchName, ServerFailure, StubError, Timeout
from stub.message import Answer, interpret, negative_ttl, parse, query
from telemetry.clock import Clock

Server = tuple[str, int]
RESOLV_CONF = Path("/etc/resolv.conf")
DNS_PORT = 53
_random = random.SystemRandom()


def system_servers(path: Path = RESOLV_CONF) -> list[Server]:
    """Return the IPv4 name servers in resolv.conf(5); 127.0.0.1 if it lists none, as libc does."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    servers = []
    for words in (line.split() for line in lines):
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                servers.append((str(ipaddress.IPv4Address(words[1])), DNS_PORT))
    return servers or [("127.0.0.1", DNS_PORT)]


@dataclass(slots=True)
class _Exchange:
    """Start time of one resolution, and bytes sent and received so far."""

    began: float
    sent: int = 0
    received: int = 0


class _Base:
    def __init__(
        self,
        servers: Sequence[Server] | None = None,
        timeout: float = 2.0,
        attempts: int = 3,
        clock: Clock | None = None,
    ) -> None:
        """Create a stub resolver.

        Args:
            servers: (IPv4 address, port) pairs, queried in this order; None reads /etc/resolv.conf.
            timeout: seconds to wait for each query.
            attempts: number of rounds over all servers.
            clock: monotonic clock for TTLs; None uses the system clock.
        """
        self.servers = list(servers) if servers is not None else system_servers()
        self.timeout, self.attempts = timeout, attempts
        self.cache = Cache()
        self._now: Callable[[], float] = clock.monotonic if clock is not None else time.monotonic

    def __repr__(self) -> str:
        return f"<{type(self).__name__} servers={self.servers} {self.cache!r}>"

    def flush(self, name: str | None = None) -> int:
        """Remove the cached answers of *name*, or all if it is None; return the number removed."""
        return self.cache.flush(name)

    def known(self, name: str, rdtype: str = "A") -> Answer | None:
        """Return an IP address literal or cached answer, raise a cached negative answer; None if a query is needed."""
        try:
            literal = str(ipaddress.IPv4Address(name))
        except ValueError:
            pass
        else:
            return Answer(name, rdtype, (literal,), float("inf"), float("inf"), True, 0.0, "", canonical_name=name)
        known = self.cache.get(name, rdtype, self._now())
        if isinstance(known, StubError):
            raise known
        return known

    def _accept(self, name: str, rdtype: str, reply: Message, server: Server, exchange: _Exchange) -> Answer:
        """Return the answer in *reply*, or raise its negative answer; both are cached."""
        now = self._now()
        try:
            rdata, ttl, canonical = interpret(reply, name, rdtype)
        except (NoSuchName, NoAddress) as outcome:
            self.cache.put(name, rdtype, outcome, negative_ttl(reply), now)
            raise
        rtt_ms = (time.perf_counter() - exchange.began) * 1000
        where = f"{server[0]}:{server[1]}"
        answer = Answer(
            name,
            rdtype,
            rdata,
            ttl,
            now + ttl,
            False,
            rtt_ms,
            where,
            "NOERROR",
            exchange.sent,
            exchange.received,
            canonical,
        )
        self.cache.put(name, rdtype, answer, ttl, now)
        return answer

    def _give_up(self, name: str, rdtype: str, last: StubError | None) -> StubError:
        if last is not None:
            return last
        asked = ", ".join(f"{host}:{port}" for host, port in self.servers)
        waited = self.timeout * self.attempts * len(self.servers)
        return Timeout(name, rdtype, f"{name}: no answer from {asked} within {waited:g} s")

    @staticmethod
    def _query(name: str, rdtype: str) -> bytes:
        try:
            return query(_random.getrandbits(16), name, rdtype)
        except ValueError as error:
            raise NoSuchName(name, rdtype, str(error)) from None


class Stub(_Base):
    """A blocking stub resolver.  It must not be shared between threads."""

    def resolve(self, name: str, rdtype: str = "A") -> Answer:
        """Return the records of *name*.

        Raises:
            NoSuchName: the name does not exist or is not valid.
            NoAddress: the name has no record of this type.
            ServerFailure: every server failed, and at least one replied with an error.
            Timeout: no server replied in time.
        """
        if (known := self.known(name, rdtype)) is not None:
            return known
        wire = self._query(name, rdtype)
        exchange = _Exchange(time.perf_counter())
        last: StubError | None = None
        for _ in range(self.attempts):
            for server in self.servers:
                try:
                    reply = self._udp(wire, server, exchange)
                    if reply.truncated:
                        reply = self._tcp(wire, server, exchange)
                    return self._accept(name, rdtype, reply, server, exchange)
                except ServerFailure as error:
                    last = error
                except (OSError, MalformedReplyError):
                    continue  # try the next server or the next attempt
            if last is not None:
                break
        raise self._give_up(name, rdtype, last)

    def _udp(self, wire: bytes, server: Server, exchange: _Exchange) -> Message:
        deadline = time.monotonic() + self.timeout
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(server)
            sock.send(wire)
            exchange.sent += len(wire)
            while (left := deadline - time.monotonic()) > 0:
                sock.settimeout(left)
                received = sock.recv(65535)
                exchange.received += len(received)
                with contextlib.suppress(MalformedReplyError):
                    return parse(wire, received)
        raise TimeoutError

    def _tcp(self, wire: bytes, server: Server, exchange: _Exchange) -> Message:
        with socket.create_connection(server, self.timeout) as sock:
            sock.sendall(struct.pack("!H", len(wire)) + wire)
            (length,) = struct.unpack("!H", _exactly(sock, 2))
            received = _exactly(sock, length)
        exchange.sent += len(wire) + 2
        exchange.received += length + 2
        return parse(wire, received)


class AsyncStub(_Base):
    """An asyncio stub resolver; concurrent requests for the same question share one query."""

    def __init__(
        self,
        servers: Sequence[Server] | None = None,
        timeout: float = 2.0,
        attempts: int = 3,
        clock: Clock | None = None,
    ) -> None:
        """Create a stub resolver; the arguments are those of `Stub`."""
        super().__init__(servers, timeout, attempts, clock)
        self._in_flight: dict[tuple[str, str], asyncio.Task[Answer]] = {}

    async def resolve(self, name: str, rdtype: str = "A") -> Answer:
        """Return the records of *name*; raises the same errors as `Stub.resolve`."""
        if (known := self.known(name, rdtype)) is not None:
            return known
        key = (name.rstrip(".").lower(), rdtype)
        task = self._in_flight.get(key)
        if task is None:
            task = self._in_flight[key] = asyncio.create_task(self._ask(name, rdtype))
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)

    def _done(self, key: tuple[str, str], task: asyncio.Task[Answer]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # mark the exception as retrieved: all waiting tasks may be cancelled

    async def _ask(self, name: str, rdtype: str) -> Answer:
        wire = self._query(name, rdtype)
        exchange = _Exchange(time.perf_counter())
        last: StubError | None = None
        for _ in range(self.attempts):
            for server in self.servers:
                try:
                    async with asyncio.timeout(self.timeout):
                        reply = await self._udp(wire, server, exchange)
                    if reply.truncated:
                        async with asyncio.timeout(self.timeout):
                            reply = await self._tcp(wire, server, exchange)
                    return self._accept(name, rdtype, reply, server, exchange)
                except ServerFailure as error:
                    last = error
                except (OSError, MalformedReplyError, asyncio.IncompleteReadError):
                    continue  # try the next server or the next attempt
            if last is not None:
                break
        raise self._give_up(name, rdtype, last)

    async def _udp(self, wire: bytes, server: Server, exchange: _Exchange) -> Message:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: _Datagrams(wire, exchange), remote_addr=server
        )
        try:
            transport.sendto(wire)
            exchange.sent += len(wire)
            return await protocol.reply
        finally:
            transport.close()

    async def _tcp(self, wire: bytes, server: Server, exchange: _Exchange) -> Message:
        reader, writer = await asyncio.open_connection(*server)
        try:
            writer.write(struct.pack("!H", len(wire)) + wire)
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            received = await reader.readexactly(length)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        exchange.sent += len(wire) + 2
        exchange.received += length + 2
        return parse(wire, received)


class _Datagrams(asyncio.DatagramProtocol):
    """Receives the datagram that replies to *wire*, and counts received bytes."""

    def __init__(self, wire: bytes, exchange: _Exchange) -> None:
        self.reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._wire, self._exchange = wire, exchange

    def datagram_received(self, data: bytes, addr: tuple[str | None, int]) -> None:  # noqa: ARG002 - asyncio interface
        self._exchange.received += len(data)
        if not self.reply.done():
            with contextlib.suppress(MalformedReplyError):
                self.reply.set_result(parse(self._wire, data))

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise ConnectionError("the server closed in the middle of an answer")
        data += chunk
    return bytes(data)
