"""The stub resolver in two forms: `Stub` blocks, `AsyncStub` runs on asyncio.

Both query the servers in order. Over UDP, each query uses a new connected socket with a port chosen by the kernel, so
datagrams from other addresses are never received (RFC 5452), and a truncated reply is retried over TCP. Over TCP and
TLS, connections are reused for later queries.
"""

import asyncio
import contextlib
import ipaddress
import random
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from dnsmessage import Message
from stub import blocking, nonblocking
from stub.cache import Cache
from stub.errors import MalformedReplyError, NoAddress, NoSuchName, ProtocolError, ServerFailure, StubError, Timeout
from stub.exchange import Exchange, Server
from stub.message import Answer, interpret, negative_ttl, query
from stub.transport import BLOCK, TCP, UDP, Transport
from telemetry.clock import Clock

RESOLV_CONF = Path("/etc/resolv.conf")
DNS_PORT = 53
#: If the transport falls back to UDP: how long, in seconds, a server is queried over UDP after TLS to it has failed.
PLAIN_FOR = 60.0
_random = random.SystemRandom()


def system_servers(path: Path = RESOLV_CONF) -> list[Server]:
    """Return the name servers in resolv.conf(5); 127.0.0.1 if it lists none, as libc does."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    servers = []
    for words in (line.split() for line in lines):
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                servers.append((str(ipaddress.ip_address(words[1])), DNS_PORT))
    return servers or [("127.0.0.1", DNS_PORT)]


class _Base:
    def __init__(
        self,
        servers: Sequence[Server] | None = None,
        timeout: float = 2.0,
        attempts: int = 3,
        clock: Clock | None = None,
        transport: Transport = UDP,
    ) -> None:
        """Create a stub resolver.

        Args:
            servers: (IP address, port) pairs, queried in this order; None reads /etc/resolv.conf.
            timeout: seconds to wait for each query, including the handshakes of a new connection.
            attempts: number of rounds over all servers.
            clock: monotonic clock for TTLs; None uses the system clock.
            transport: how to reach the servers: `UDP`, `TCP`, or the result of `strict`, `opportunistic` or `https`.
        """
        self.servers = list(servers) if servers is not None else system_servers()
        self.timeout, self.attempts, self.transport = timeout, attempts, transport
        #: Servers for which TLS has failed; the value is the time until which they are queried over UDP.
        self._plain: dict[Server, float] = {}
        self.cache = Cache()
        self._now: Callable[[], float] = clock.monotonic if clock is not None else time.monotonic
        self._prepare()

    def _prepare(self) -> None:
        """Create the additional state of a subclass."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} servers={self.servers} {self.cache!r}>"

    def flush(self, name: str | None = None) -> int:
        """Remove the cached answers for *name*, or all answers if *name* is None; return the number removed."""
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

    def _transport(self, server: Server) -> Transport:
        """Return the transport to use for *server* now; UDP for a while after a fallback."""
        return UDP if self._plain.get(server, 0.0) > time.monotonic() else self.transport

    def _failed(self, name: str, rdtype: str, server: Server, error: OSError) -> StubError | None:
        """Record that *server* could not be queried; return the error to raise if all other servers fail too."""
        if self.transport.falls_back:
            self._plain[server] = time.monotonic() + PLAIN_FOR
        if isinstance(error, ssl.SSLError) and not self.transport.falls_back:
            reason = getattr(error, "verify_message", None) or error.reason or error
            return ServerFailure(name, rdtype, f"{name}: TLS to {server[0]}:{server[1]} failed: {reason}")
        if isinstance(error, ProtocolError):
            return ServerFailure(name, rdtype, f"{name}: DNS over HTTPS to {server[0]}:{server[1]} failed: {error}")
        return None

    def _accept(self, name: str, rdtype: str, reply: Message, server: Server, exchange: Exchange) -> Answer:
        """Return the answer in *reply* or raise the negative answer; both are cached."""
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
            self._transport(server).kind,
            exchange.round_trips,
        )
        self.cache.put(name, rdtype, answer, ttl, now)
        return answer

    def _give_up(self, name: str, rdtype: str, last: StubError | None) -> StubError:
        if last is not None:
            return last
        asked = ", ".join(f"{host}:{port}" for host, port in self.servers)
        waited = self.timeout * self.attempts * len(self.servers)
        return Timeout(name, rdtype, f"{name}: no answer from {asked} within {waited:g} s")

    def _query(self, name: str, rdtype: str) -> bytes:
        try:
            return query(_random.getrandbits(16), name, rdtype, BLOCK if self.transport.pads else 0)
        except ValueError as error:
            raise NoSuchName(name, rdtype, str(error)) from None


class Stub(_Base):
    """A blocking stub resolver.  It must not be shared between threads.

    Over TCP and TLS it reuses connections. Use it as a context manager or call `close`.
    """

    def _prepare(self) -> None:
        self._streams: dict[Server, blocking.Stream] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        while self._streams:
            self._streams.popitem()[1].close()

    def resolve(self, name: str, rdtype: str = "A") -> Answer:
        """Return the records of *name*.

        Raises:
            NoSuchName: the name does not exist or is not valid.
            NoAddress: the name has no record of this type.
            ServerFailure: every server failed, and at least one replied with an error or has an invalid certificate.
            Timeout: no server replied in time.
        """
        if (known := self.known(name, rdtype)) is not None:
            return known
        wire = self._query(name, rdtype)
        exchange = Exchange(time.perf_counter())
        last: StubError | None = None
        for _ in range(self.attempts):
            for server in self.servers:
                try:
                    reply = self._ask(wire, server, exchange)
                    return self._accept(name, rdtype, reply, server, exchange)
                except ServerFailure as error:
                    last = error
                except OSError as error:
                    last = self._failed(name, rdtype, server, error) or last
                except MalformedReplyError:
                    continue  # try the next server or the next attempt
            if last is not None:
                break
        raise self._give_up(name, rdtype, last)

    def _ask(self, wire: bytes, server: Server, exchange: Exchange) -> Message:
        transport = self._transport(server)
        if transport.kind == "udp":
            reply = blocking.udp(wire, server, self.timeout, exchange)
            if not reply.truncated:
                return reply
            with blocking.Stream(TCP, server, self.timeout) as stream:
                return stream.ask(wire, self.timeout, exchange)
        kept: blocking.Stream | None = self._streams.pop(server, None)
        while True:
            stream = kept or blocking.Stream(transport, server, self.timeout)
            try:
                reply = stream.ask(wire, self.timeout, exchange)
            except BaseException as error:
                stream.close()
                if kept is None or not isinstance(error, ConnectionError):
                    raise
                kept = None  # the server has closed an idle connection
            else:
                self._streams[server] = stream
                return reply


class AsyncStub(_Base):
    """An asyncio stub resolver; concurrent requests for the same question share one query.

    Over TCP and TLS, concurrent queries share one connection per server; `close` closes all connections.
    """

    def _prepare(self) -> None:
        self._in_flight: dict[tuple[str, str], asyncio.Task[Answer]] = {}
        self._streams: dict[Server, asyncio.Task[nonblocking.Stream]] = {}

    async def close(self) -> None:
        """Close all connections."""
        streams, self._streams = self._streams, {}
        for each in await asyncio.gather(*streams.values(), return_exceptions=True):
            if isinstance(each, nonblocking.Stream):
                each.close()
        await asyncio.sleep(0)  # let the event loop close the sockets

    async def resolve(self, name: str, rdtype: str = "A") -> Answer:
        """Return the records of *name*; raises the same errors as `Stub.resolve`."""
        if (known := self.known(name, rdtype)) is not None:
            return known
        key = (name.rstrip(".").lower(), rdtype)
        task = self._in_flight.get(key)
        if task is None:
            task = self._in_flight[key] = asyncio.create_task(self._resolve(name, rdtype))
            task.add_done_callback(lambda done: self._done(key, done))
        return await asyncio.shield(task)

    def _done(self, key: tuple[str, str], task: asyncio.Task[Answer]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # mark the exception as retrieved: all waiting tasks may be cancelled

    async def _resolve(self, name: str, rdtype: str) -> Answer:
        wire = self._query(name, rdtype)
        exchange = Exchange(time.perf_counter())
        last: StubError | None = None
        for _ in range(self.attempts):
            for server in self.servers:
                try:
                    reply = await self._ask(wire, server, exchange)
                    return self._accept(name, rdtype, reply, server, exchange)
                except ServerFailure as error:
                    last = error
                except OSError as error:
                    last = self._failed(name, rdtype, server, error) or last
                except MalformedReplyError:
                    continue  # try the next server or the next attempt
            if last is not None:
                break
        raise self._give_up(name, rdtype, last)

    async def _ask(self, wire: bytes, server: Server, exchange: Exchange) -> Message:
        transport = self._transport(server)
        if transport.kind == "udp":
            async with asyncio.timeout(self.timeout):
                reply = await nonblocking.udp(wire, server, exchange)
            if not reply.truncated:
                return reply
            async with asyncio.timeout(self.timeout):
                stream = await nonblocking.Stream.open(TCP, server)
                try:
                    return await stream.ask(wire, exchange)
                finally:
                    stream.close()
        async with asyncio.timeout(self.timeout):
            stream, is_new = await self._stream(transport, server)
            try:
                return await stream.ask(wire, exchange)
            except ConnectionError:
                if is_new:
                    raise
            stream, _ = await self._stream(transport, server)  # the server has closed an idle connection
            return await stream.ask(wire, exchange)

    async def _stream(self, transport: Transport, server: Server) -> tuple[nonblocking.Stream, bool]:
        """Return a connection to *server* and whether it is new; concurrent queries wait for the same connection."""
        task = self._streams.get(server)
        if task is not None and task.done() and (task.cancelled() or task.exception() or task.result().ended):
            task = None
        is_new = task is None
        if task is None:
            task = self._streams[server] = asyncio.create_task(nonblocking.Stream.open(transport, server))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # mark the exception as retrieved
        return await asyncio.shield(task), is_new
