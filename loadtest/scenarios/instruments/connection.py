"""Blocking HTTP connection that measures the duration of each phase; all latency scenarios use it."""

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

#: Seconds without data after which connecting, the handshake or a request fails.
TIMEOUT = 10.0
AGENT = "User-Agent: firstbyte"


@dataclass(frozen=True, slots=True)
class Address:
    """Server address to connect to, and the host name that its certificate must contain."""

    host: str
    address: str
    port: int


@dataclass(slots=True)
class Times:
    """Duration of each phase of a request in milliseconds; 0 for a phase that did not take place."""

    connect: float = 0.0
    tls: float = 0.0
    first_byte: float = 0.0
    body: float = 0.0

    @property
    def ttfb(self) -> float:
        """Milliseconds from the start of the request, with connection set-up, to the first byte of the response."""
        return self.connect + self.tls + self.first_byte


class Connection:
    """HTTP connection, opened by the constructor; call `ask` repeatedly while the server keeps it open."""

    def __init__(
        self,
        to: Address,
        context: ssl.SSLContext | None,
        session: ssl.SSLSession | None = None,
        *,
        receive_buffer: int = 0,
        timeout: float = TIMEOUT,
    ) -> None:
        """Connect, and run the TLS handshake if *context* is given.

        Args:
            to: server address and host name.
            context: TLS settings; None for plain TCP.
            session: TLS session to resume.
            receive_buffer: size of the receive buffer in bytes, which limits the receive window; 0 for the system's
                default.
            timeout: seconds without data after which a phase fails.

        Raises:
            OSError: connecting or the TLS handshake failed.
        """
        self.to = to
        #: Durations of connect and TLS handshake, which become part of the first request's times.
        self.opening = Times()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.channel: TlsSocket | None = None
        try:
            self.sock.settimeout(timeout)
            if receive_buffer:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            began = time.perf_counter()
            self.sock.connect((to.address, to.port))
            self.opening.connect = (time.perf_counter() - began) * 1000
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                began = time.perf_counter()
                self.channel = TlsSocket(self.sock, context, to.host, session)
                self.channel.handshake()
                self.opening.tls = (time.perf_counter() - began) * 1000
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def session(self) -> ssl.SSLSession | None:
        """The TLS session that the next connection may resume; in TLS 1.3 the ticket arrives after the handshake."""
        return self.channel.tls.object.session if self.channel is not None else None

    @property
    def resumed(self) -> bool:
        """Whether the TLS handshake resumed a session."""
        return self.channel is not None and bool(self.channel.tls.object.session_reused)

    @property
    def handshake_bytes(self) -> tuple[int, int]:
        """Bytes of TLS records sent and received so far."""
        return (self.channel.sent, self.channel.received) if self.channel is not None else (0, 0)

    def ask(self, path: str) -> Times:
        """Send a GET request and read its response; the first request's times include connection set-up.

        Raises:
            OSError: the connection ended early, or the response is not valid HTTP.
        """
        times, self.opening = self.opening, Times()
        response = ResponseReader()
        began = time.perf_counter()
        self._send(get(self.to.host, path, AGENT))
        data = self._receive()
        times.first_byte = (time.perf_counter() - began) * 1000
        began = time.perf_counter()
        while data:
            if self._complete(response, data):
                times.body = (time.perf_counter() - began) * 1000
                return times
            data = self._receive()
        raise ConnectionError(f"{self.to.host}: the connection ended before the response was complete")

    def arrivals(self, path: str, *, last: bool = False, wait: float = 0.0) -> Iterator[tuple[float, bytes]]:
        """Send a GET request and yield each piece of the response as (milliseconds since the request, bytes).

        Args:
            path: request path.
            last: whether to ask the server to close the connection after the response.  The response then ends with the
                stream and may be corrupt, because it is not parsed.
            wait: seconds between the request and the first read.

        Raises:
            OSError: the connection ended early, or the response is not valid HTTP; all earlier pieces have been
                yielded.
        """
        self.opening = Times()
        response = ResponseReader()
        began = time.perf_counter()
        self._send(get(self.to.host, path, AGENT, *(["Connection: close"] if last else [])))
        time.sleep(wait)  # pause of the reader, given by the caller
        while data := self._receive():
            yield (time.perf_counter() - began) * 1000, data
            if not last and self._complete(response, data):
                return
        if not last:
            raise ConnectionError(f"{self.to.host}: the connection ended before the response was complete")

    def close(self) -> None:
        """Close the connection without waiting for the server to close it."""
        with suppress(OSError):
            if self.channel is not None:
                self.channel.close_notify()
        self.sock.close()

    def _complete(self, response: ResponseReader, data: bytes) -> bool:
        try:
            return response.feed(data)
        except HttpError as error:
            raise ConnectionError(f"{self.to.host}: {error}") from None

    def _send(self, data: bytes) -> None:
        if self.channel is not None:
            self.channel.write(data)
        else:
            self.sock.sendall(data)

    def _receive(self) -> bytes:
        return self.channel.read() if self.channel is not None else self.sock.recv(1 << 16)
