"""Loads pages of several small responses over HTTP/2 or HTTP/1.1, on connections opened in advance.

`quic_client.QuicPages` does the same over HTTP/3.

Opening a connection takes a second longer if its first packet is lost, so all connections are opened before the link
loses packets.  A connection on which a response was delayed is not used again, because the loss has reduced its
congestion window.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from hostfiles.layout import TRUST_ANCHOR
from scenarios.instruments.connection import Address, Connection
from scenarios.instruments.http2_client import Http2Connection
from wireformat.tls import client_context

#: Number of connections that are opened at the same time.
AT_ONCE = 6
T = TypeVar("T")


class Pages(ABC, Generic[T]):
    """Opens connections in advance, and loads pages over them.

    Args:
        to: server.
        responses: responses in a page.
        size: size of each response in bytes.
        limit: milliseconds above which a response counts as delayed.
    """

    #: Number of connections that one page needs.
    needs = 1

    def __init__(self, to: Address, responses: int, size: int, limit: float) -> None:
        self.to, self.limit = to, limit
        self.paths = [f"/bytes/{size}"] * responses
        self.stock: list[T] = []

    @property
    def ready(self) -> bool:
        """Whether enough connections are left for another page."""
        return len(self.stock) >= self.needs

    @abstractmethod
    async def open(self, connections: int) -> None:
        """Open *connections* connections in addition to those that a page needs; raise `OSError` on failure."""

    @abstractmethod
    async def load(self) -> list[float]:
        """Load one page; return how many milliseconds each response took.

        Raises:
            OSError: a response failed.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""


class _TcpPages(Pages[T]):
    """Base class for page loads over TCP; they use blocking sockets, so each connection runs in its own thread."""

    #: Protocol to offer in ALPN; "" for none.
    alpn = ""

    def __init__(self, to: Address, responses: int, size: int, limit: float) -> None:
        super().__init__(to, responses, size, limit)
        self._threads = ThreadPoolExecutor(max(AT_ONCE, responses))
        self._tls = client_context(TRUST_ANCHOR, "1.3")
        if self.alpn:
            self._tls.set_alpn_protocols([self.alpn])

    async def open(self, connections: int) -> None:
        """Open connections; raise `OSError` on failure."""
        self.stock += await self._each(lambda _: self._open(), range(self.needs + connections))

    async def _each(self, function: Callable[..., T], of: range) -> list[T]:
        return await asyncio.to_thread(lambda: list(self._threads.map(function, of)))

    @abstractmethod
    def _open(self) -> T:
        """Open a connection and complete one request, so that all session tickets and settings have arrived."""


class Http2Pages(_TcpPages[Http2Connection]):
    """Pages over HTTP/2: all responses share one TCP connection."""

    alpn = "h2"

    def _open(self) -> Http2Connection:
        connection = Http2Connection(self.to, self._tls)
        # Load one page, so that the edge opens as many connections to origins as a page needs.
        connection.ask(self.paths)
        return connection

    async def load(self) -> list[float]:
        """Load one page over the newest connection; raise `OSError` if a response fails."""
        times = await asyncio.to_thread(self.stock[-1].ask, self.paths)
        if max(times) > self.limit:
            self.stock.pop().close()
        return times

    async def close(self) -> None:
        """Close all connections."""
        while self.stock:
            self.stock.pop().close()
        self._threads.shutdown()


class Http1Pages(_TcpPages[Connection]):
    """Pages over HTTP/1.1: each response has a connection of its own."""

    def __init__(self, to: Address, responses: int, size: int, limit: float) -> None:
        super().__init__(to, responses, size, limit)
        self.needs = responses

    def _open(self) -> Connection:
        connection = Connection(self.to, self._tls)
        connection.ask(self.paths[0])
        return connection

    async def load(self) -> list[float]:
        """Load one page over the newest connections; raise `OSError` if a response fails."""
        used = self.stock[-self.needs :]
        times = await asyncio.to_thread(lambda: list(self._threads.map(self._time, used)))
        for connection, taken in zip(used, times, strict=True):
            if taken > self.limit:
                self.stock.remove(connection)
                connection.close()
        return times

    def _time(self, connection: Connection) -> float:
        began = time.perf_counter()
        connection.ask(self.paths[0])
        return (time.perf_counter() - began) * 1000

    async def close(self) -> None:
        """Close all connections."""
        while self.stock:
            self.stock.pop().close()
        self._threads.shutdown()
