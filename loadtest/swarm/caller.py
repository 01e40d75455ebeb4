"""Blocking clients for Locust users, which record the phases of each request: HTTPS, HTTP, TCP, and DNS over UDP.

Host names are resolved by the project's stub resolver, with one cache per process, because gevent's getaddrinfo has no
cache and only ten threads for all users.
"""

import contextlib
import random
import socket
import ssl
import time
from collections.abc import Sequence

import gevent

from dnsmessage import rcode_to_text
from generator import Channel, Kind, LoadError, Request, Target
from generator.connection import CHUNK, LINGER, connect_cause
from stub import Stub, StubError
from stub.message import query

#: Time after which a request counts as lost, in seconds.
TIMEOUT = 5.0
#: Maximum number of idle connections per user.
KEPT = 64


class _ExpiredError(Exception):
    """A request exceeded its time limit."""


class _Link:
    """A TCP connection: a socket and its protocol state."""

    __slots__ = ("channel", "sock")

    def __init__(self, sock: socket.socket, channel: Channel) -> None:
        self.sock, self.channel = sock, channel

    def usable(self) -> bool:
        """Return whether another request can be sent; processes data that arrived while the connection was idle."""
        self.sock.settimeout(0.0)
        try:
            data = self.sock.recv(CHUNK)
            if data:
                self.channel.receive(data, time.monotonic())
            return bool(data) and self.channel.reusable
        except BlockingIOError:
            return True
        except (OSError, LoadError):
            return False
        finally:
            self.sock.settimeout(None)


class Caller:
    """The HTTP, HTTPS or TCP client of one Locust user; all greenlets of that user may share it."""

    def __init__(
        self, target: Target, kind: Kind, context: ssl.SSLContext | None, stub: Stub, timeout: float = TIMEOUT
    ) -> None:
        """Create a client without connections.

        Args:
            target: server; its path is ignored.
            kind: kind of connection.
            context: TLS context that verifies certificate chains, or None for plain HTTP; one per process, since a
                session can be resumed only by the context that created it.
            stub: stub resolver; one per process, so that all users share its cache.
            timeout: seconds after which a request counts as lost.
        """
        self.target, self.kind, self.timeout = target, kind, timeout
        self._context, self._stub = context, stub
        self._session: ssl.SSLSession | None = None
        self._idle: list[_Link] = []

    def get(self, path: str, intended: float | None = None) -> Request:
        """Request *path* and return the completed or lost request.

        Args:
            path: path to request; ignored if the kind is tcp.
            intended: intended start, in seconds on `time.monotonic`; None: now.
        """
        now = time.monotonic()
        request = Request(now if intended is None else intended, self.kind, now)
        phase = ["dns"]
        link: _Link | None = None
        try:
            with gevent.Timeout(self.timeout, _ExpiredError):
                link = self._link(request, phase)
                if link is None:
                    return request
                self._exchange(link, request, path)
        except _ExpiredError:
            self._lost(request, link, phase, "timeout")
        except LoadError as error:
            self._lost(request, link, phase, str(error))
        except StubError as error:
            self._lost(request, link, phase, f"name: {type(error).__name__}")
        except OSError as error:
            self._lost(request, link, phase, "reset" if link is not None else connect_cause(error.errno))
        else:
            self._dispose(link)
        return request

    def close(self) -> None:
        """Close all idle connections."""
        while self._idle:
            _leave(self._idle.pop())

    def _link(self, request: Request, phase: list[str]) -> _Link | None:
        """Return an idle or a new connection; None if the kind is tcp, because connecting completes such a request.

        *phase* is a list with one element, the current phase; this method updates it.
        """
        while self.kind == "pooled" and self._idle:
            link = self._idle.pop()
            if link.usable():
                return link
            link.sock.close()
        began = time.monotonic()
        answer = self._stub.resolve(self.target.host)
        resolved = time.monotonic()
        request.dns = 0.0 if answer.cached else resolved - began
        phase[0] = "connect"
        sock = socket.create_connection((answer.rdata[0], self.target.port))
        connected = time.monotonic()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request.connect, request.local_port = connected - resolved, sock.getsockname()[1]
        if self.kind == "tcp":
            request.done = connected
            gevent.spawn(_leave, _Link(sock, Channel(None, self.target.host)))
            return None
        return _Link(sock, Channel(self._context, self.target.host, self._session if self.kind == "resumed" else None))

    def _exchange(self, link: _Link, request: Request, path: str) -> None:
        channel, sock = link.channel, link.sock
        text = Target(self.target.host, self.target.port, path, None).head(close=False)
        sock.sendall(channel.ask(request, text, time.monotonic()))
        while channel.request is not None:
            data = sock.recv(CHUNK)
            now = time.monotonic()
            if not data:
                channel.end(now)
                return
            reply = channel.receive(data, now)
            if channel.ready:  # the TLS phase includes chain verification
                reply += channel.proceed(time.monotonic())
            if reply:
                sock.sendall(reply)

    def _dispose(self, link: _Link) -> None:
        if self.kind == "resumed":
            self._session = link.channel.session or self._session
        if self.kind == "pooled" and link.channel.reusable and len(self._idle) < KEPT:
            self._idle.append(link)
        else:
            gevent.spawn(_leave, link)

    def _lost(self, request: Request, link: _Link | None, phase: list[str], cause: str) -> None:
        request.error, request.done = cause, time.monotonic()
        request.failed_in = phase[0] if link is None else link.channel.phase
        if link is not None:
            with contextlib.suppress(OSError):
                link.sock.sendall(link.channel.close_notify())
            link.sock.close()


def _leave(link: _Link) -> None:
    """Send the first FIN and wait for the peer's, at most `LINGER` seconds, so that this side enters TIME-WAIT."""
    with contextlib.suppress(OSError, _ExpiredError), gevent.Timeout(LINGER, _ExpiredError):
        link.sock.sendall(link.channel.close_notify())
        link.sock.shutdown(socket.SHUT_WR)
        while link.sock.recv(CHUNK):
            pass
    link.sock.close()


class Query:
    """A DNS client for one name server over UDP.  Any response counts as success, whatever its rcode."""

    def __init__(self, servers: Sequence[tuple[str, int]], timeout: float = 2.0) -> None:
        """Create a client for the first of *servers*, given as (address, port); *timeout* is in seconds."""
        self.server, self.timeout = servers[0], timeout

    def ask(self, name: str, rdtype: str = "A", intended: float | None = None) -> tuple[Request, str]:
        """Send one query.

        Args:
            name: domain name to query.
            rdtype: record type to query.
            intended: intended start, in seconds on `time.monotonic`; None: now.

        Returns:
            The completed or lost request, and the rcode of the response; "" if there was none.
        """
        now = time.monotonic()
        request = Request(now if intended is None else intended, "dns", now)
        wire = query(random.getrandbits(16), name, rdtype)
        rcode = ""
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, gevent.Timeout(self.timeout, _ExpiredError):
                sock.connect(self.server)
                sock.send(wire)
                while not rcode:
                    reply = sock.recv(65535)
                    # A reply matches if it has the query's ID and question; the query's last 11 bytes are EDNS.
                    if reply[:2] == wire[:2] and reply[12 : len(wire) - 11].lower() == wire[12:-11].lower():
                        rcode = rcode_to_text(reply[3] & 0x0F)
        except _ExpiredError:
            request.error = "timeout"
        except OSError as error:
            request.error = connect_cause(error.errno)
        request.done = time.monotonic()
        request.bytes_sent = len(wire)
        if request.error:
            request.failed_in = "dns"
        else:
            request.bytes_received = len(reply)
        return request, rcode
