"""One TCP connection on the event loop, which transfers the bytes of a channel.

This module uses sockets instead of asyncio's transports, because it controls which side closes first and which source
port is used, and measures exactly when the handshake ends.  The side that sends the first FIN enters TIME-WAIT (RFC
9293 section 3.6.1).  To keep it there, `Connection.leave` waits for the peer's FIN before it closes the socket: data
that arrives at a closed socket causes a reset, which removes the TIME-WAIT state.
"""

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Callable
from typing import Any

from generator.channel import Channel
from generator.request import Closes, LoadError, Request
from linuxnet.source_ports import Source

#: Maximum size of one read in bytes: larger than a TLS record, but too small for malloc to call mmap for each read.
CHUNK = 65536
#: Maximum time to wait for the peer's FIN before the socket is closed, in seconds.
LINGER = 2.0


class Connection:
    """A client connection that carries one request at a time and reports each outcome through callbacks."""

    def __init__(
        self,
        now: Callable[[], float],
        channel: Channel | None,
        done: Callable[["Connection"], None],
        lost: Callable[["Connection", str], None],
        gone: Callable[["Connection"], None],
    ) -> None:
        """Create a connection; `open` connects it.

        Args:
            now: returns the load's current time in seconds.
            channel: TLS and HTTP state of the connection; None for bare TCP.
            done: called when the response to the current request is complete; for bare TCP, when connected.
            lost: called with the cause when the current request fails.
            gone: called once, when the socket is closed.
        """
        self.channel = channel
        self.request: Request | None = None
        self._now, self._done, self._lost, self._gone = now, done, lost, gone
        self._loop = asyncio.get_running_loop()
        self._sock: Any = None  # None while the connection is closed
        self._unsent = b""
        self._text = b""
        self._since = 0.0
        self._connected = self._leaving = self._closed = False
        self._linger: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "closed" if self._sock is None else "leaving" if self._leaving else "busy" if self.request else "idle"
        return f"<Connection {state} {self.channel!r}>"

    @property
    def phase(self) -> str:
        """The current phase of the current request, one of `PHASES`."""
        if not self._connected or self.channel is None:
            return "connect"
        return self.channel.phase

    @property
    def leaving(self) -> bool:
        """Whether the connection is being closed, so that no further request may be sent on it."""
        return self._leaving

    def open(self, request: Request, text: bytes, address: tuple[str, int], source: Source) -> None:
        """Connect to *address* from a port of *source*, and send *request*, encoded as *text*."""
        self.request, self._text, self._since = request, text, self._now()
        try:
            sock = self._sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            source.apply(sock)
            code = sock.connect_ex(address)
        except OSError as error:
            self.fail(connect_cause(error.errno))
            return
        if code not in {0, errno.EINPROGRESS}:
            self.fail(connect_cause(code))
            return
        self._loop.add_writer(sock, self._on_connected)

    def ask(self, request: Request, text: bytes) -> None:
        """Send another request, encoded as *text*, on the open connection."""
        self.request = request
        if self.channel is not None:
            self._send(self.channel.ask(request, text, self._now()))

    def fail(self, cause: str) -> None:
        """Report the current request as lost for *cause*, and close the connection."""
        if self.channel is not None and self._connected and self._sock is not None:
            self._send(self.channel.close_notify())
        if self.request is not None:
            self._lost(self, cause)
            self.request = None
        self.close()

    def leave(self, closes: Closes) -> None:
        """Close the connection: send the first FIN ("client"), wait for the peer's ("server"), or reset ("abort")."""
        if self._sock is None or self._leaving:
            return
        self._leaving = True
        if not self._connected:
            self.close()
            return
        if closes == "abort":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()
            return
        if closes == "client":
            if self.channel is not None:
                self._send(self.channel.close_notify())
            with contextlib.suppress(OSError):  # the peer has reset the connection
                self._sock.shutdown(socket.SHUT_WR)
        self._linger = self._loop.call_later(LINGER, self.close)

    def close(self) -> None:
        """Close the socket immediately, without waiting for the peer's FIN."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None
        if not self._closed:
            self._closed = True
            self._gone(self)

    # --- called by the event loop ---------------------------------------------------------------------------------
    def _on_connected(self) -> None:
        now = self._now()
        sock = self._sock
        self._loop.remove_writer(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        request = self.request
        if code or request is None:
            self.fail(connect_cause(code))
            return
        self._connected = True
        request.connect = now - self._since
        request.local_port = sock.getsockname()[1]
        self._loop.add_reader(sock, self._on_readable)
        if self.channel is None:
            request.done = now
            self._done(self)
            return
        try:
            self._send(self.channel.ask(request, self._text, now))
        except LoadError as error:
            self.fail(str(error))

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.fail("reset")
            return
        if self.channel is not None:
            now = self._now()
            try:
                if not data:
                    self.channel.end(now)
                else:
                    reply = self.channel.receive(data, now)
                    if self.channel.ready:  # the TLS phase includes the time that chain verification took
                        reply += self.channel.proceed(self._now())
                    self._send(reply)
            except LoadError as error:
                self.fail(str(error))
                return
            if self.request is not None and self.channel.request is None:
                self._done(self)
            elif self.request is None and not self.channel.reusable:
                self.leave("server")  # the server sent close_notify, and its FIN follows
        if not data:
            self.close()

    def _send(self, data: bytes) -> None:
        if self._sock is None or not data:
            return
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # the next read reports the error
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._sock, self._on_writable)
        self._unsent += data

    def _on_writable(self) -> None:
        self._loop.remove_writer(self._sock)
        data, self._unsent = self._unsent, b""
        self._send(data)


def connect_cause(code: int | None) -> str:
    """Return the cause of a failed connect, such as ``connect: EADDRNOTAVAIL``."""
    return f"connect: {errno.errorcode.get(code or 0, code)}"
