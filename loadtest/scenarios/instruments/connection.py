"""One HTTP connection on blocking sockets whose every phase is timed: what latency scenarios measure with."""

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from waterfall.tls import TlsSocket
from wireformat.http1 import HttpError, get
from wireformat.http1_reader import ResponseReader

#: Seconds until a step that hears nothing is given up.
TIMEOUT = 10.0
AGENT = "User-Agent: firstbyte"


class ConnectionError_(OSError):  # noqa: N801, N818 - the builtin has the name
    """The server did not answer as HTTP does."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a connection goes, and the name that its certificate must bear."""

    host: str
    address: str
    port: int


@dataclass(slots=True)
class Times:
    """Milliseconds of each phase; 0 for one that was not necessary."""

    connect: float = 0.0
    tls: float = 0.0
    first_byte: float = 0.0
    body: float = 0.0

    @property
    def ttfb(self) -> float:
        """Milliseconds from the wish to the first byte of the answer."""
        return self.connect + self.tls + self.first_byte


class Connection:
    """One connection, opened at once; `ask` may be called again as long as the server keeps it open."""

    def __init__(
        self,
        to: Address,
        context: ssl.SSLContext | None,
        session: ssl.SSLSession | None = None,
        *,
        receive_buffer: int = 0,
        timeout: float = TIMEOUT,
    ) -> None:
        """Connect, and shake hands if there is a *context*.

        Args:
            to: whom to ask.
            context: None: plain TCP.
            session: a ticket to resume with.
            receive_buffer: octets that the kernel may keep for us, thus the window that we announce; 0: as it likes.
            timeout: seconds until a step that hears nothing is given up.

        Raises:
            OSError: nobody answers, or not as TLS does.
        """
        self.to = to
        self._opening = Times()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.channel: TlsSocket | None = None
        try:
            self.sock.settimeout(timeout)
            if receive_buffer:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            began = time.perf_counter()
            self.sock.connect((to.address, to.port))
            self._opening.connect = (time.perf_counter() - began) * 1000
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                began = time.perf_counter()
                self.channel = TlsSocket(self.sock, context, to.host, session)
                self.channel.handshake()
                self._opening.tls = (time.perf_counter() - began) * 1000
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def opening(self) -> Times:
        """What opening took, until the first request's times include it."""
        return self._opening

    @property
    def session(self) -> ssl.SSLSession | None:
        """The ticket with which the next connection may resume; TLS 1.3 sends it after the handshake."""
        return self.channel.tls.object.session if self.channel is not None else None

    @property
    def resumed(self) -> bool:
        """Whether the handshake resumed a session."""
        return self.channel is not None and bool(self.channel.tls.object.session_reused)

    @property
    def handshake_bytes(self) -> tuple[int, int]:
        """Octets of TLS records sent and received so far."""
        return (self.channel.sent, self.channel.received) if self.channel is not None else (0, 0)

    def ask(self, path: str) -> Times:
        """Send a GET request and read its answer; the first request's times include opening.

        Raises:
            OSError: the connection ended, or what came is not HTTP.
        """
        times, self._opening = self._opening, Times()
        answer = ResponseReader()
        began = time.perf_counter()
        self._send(get(self.to.host, path, AGENT))
        data = self._receive()
        times.first_byte = (time.perf_counter() - began) * 1000
        began = time.perf_counter()
        while data:
            if self._complete(answer, data):
                times.body = (time.perf_counter() - began) * 1000
                return times
            data = self._receive()
        raise ConnectionError_(f"{self.to.host}: the connection ended before the answer was whole")

    def arrivals(self, path: str, *, last: bool = False) -> Iterator[tuple[float, bytes]]:
        """Send a GET request and yield its answer as it comes, head and all: (milliseconds since the request, octets).

        Args:
            path: what to ask for.
            last: the server shall close afterwards; then the answer ends where the stream does, and nothing has to be
                understood of it: it may be damaged.

        Raises:
            OSError: the connection ended early, or what came is not HTTP; all that came before was yielded.
        """
        self._opening = Times()
        answer = ResponseReader()
        began = time.perf_counter()
        self._send(get(self.to.host, path, AGENT, *(["Connection: close"] if last else [])))
        while data := self._receive():
            yield (time.perf_counter() - began) * 1000, data
            if not last and self._complete(answer, data):
                return
        if not last:
            raise ConnectionError_(f"{self.to.host}: the connection ended before the answer was whole")

    def close(self) -> None:
        """Close first, without waiting for the other side."""
        with suppress(OSError):
            if self.channel is not None:
                self.channel.close_notify()
        self.sock.close()

    def _complete(self, answer: ResponseReader, data: bytes) -> bool:
        try:
            return answer.feed(data)
        except HttpError as error:
            raise ConnectionError_(f"{self.to.host}: {error}") from None

    def _send(self, data: bytes) -> None:
        if self.channel is not None:
            self.channel.write(data)
        else:
            self.sock.sendall(data)

    def _receive(self) -> bytes:
        return self.channel.read() if self.channel is not None else self.sock.recv(1 << 16)
