"""One connection to an origin: sends a request, streams the response back (RFC 9112).

A plain asyncio protocol: nothing here chooses, retries or pools.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import httptools

from edge.errors import UpstreamError
from edge.headers import MAX_FIELDS, MAX_HEADER, Fields
from edge.pool import Connection
from edge.routes import Target
from stub import AsyncStub, StubError

#: Seconds for look-up, TCP and TLS together.
CONNECT_TIMEOUT = 5.0
#: Octets that wait for a slow side before the quick side is paused.
HIGH_WATER = 256 * 1024


class Receiver(Protocol):
    """Who gets the response."""

    def response_head(self, status: int, reason: bytes, fields: Fields) -> None:
        """The final status line and fields came."""

    def response_body(self, data: bytes) -> None:
        """Some of the body came."""

    def response_end(self, reusable: bool) -> None:
        """The response is whole."""

    def response_lost(self, reason: str) -> None:
        """The connection ended or spoke nonsense before the response was whole."""

    def upstream_writable(self, writable: bool) -> None:
        """The origin takes the request's body (again), or does not for now."""


@dataclass(slots=True)
class Timing:
    """Milliseconds that opening a connection took; 0 for what was not needed."""

    dns: float = 0.0
    connect: float = 0.0
    tls: float = 0.0


class Upstream(asyncio.Protocol):
    """A connection to an origin, used for one request at a time."""

    def __init__(self, on_idle_loss: Callable[["Upstream"], None]) -> None:
        self.pooled: Connection | None = None
        self.address = ""
        self.transport: asyncio.Transport | None = None
        self.receiver: Receiver | None = None
        #: Whether a byte of the present response came: after it a request can not be sent again.
        self.began = False
        self._on_idle_loss = on_idle_loss
        self._parser: Any = None
        self._head_only = False
        self._fields: Fields = []
        self._size = 0
        self._reason = b""
        self._ended = False
        self._until_close = False

    # --- asyncio ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's transport
        self.transport.set_write_buffer_limits(HIGH_WATER)  # type: ignore[union-attr]  # connected: it has one

    def data_received(self, data: bytes) -> None:
        if self.receiver is None:  # an origin that speaks out of turn is not trusted with the next request
            self.abort()
            return
        self.began = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("the origin wants to switch protocols")
        except httptools.HttpParserError as error:
            if self._parser is not None and not self._ended:
                self._fail(f"expected an HTTP response: {error.__context__ or error}")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        receiver, self.receiver = self.receiver, None
        self.transport = None
        if receiver is None:
            self._on_idle_loss(self)
        elif self._until_close and not self._ended and exc is None:
            receiver.response_end(reusable=False)
        elif not self._ended:
            receiver.response_lost(f"the origin closed: {exc}" if exc else "the origin closed the connection")

    def pause_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.upstream_writable(writable=False)

    def resume_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.upstream_writable(writable=True)

    # --- for whoever forwards ---------------------------------------------------------------------------------------

    def send_request(self, head: bytes, receiver: Receiver, *, head_only: bool) -> None:
        """Send a request's head; its body follows by `write`.  *head_only*: the answer to HEAD has no body."""
        self.receiver, self._head_only = receiver, head_only
        self.began = self._ended = self._until_close = False
        self._fields, self._size, self._reason = [], 0, b""
        self._parser = httptools.HttpResponseParser(self)
        self.write(head)

    def write(self, data: bytes) -> None:
        """Send some of the body."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def pause(self) -> None:
        """The client is slow: read no more for now."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume(self) -> None:
        """The client takes more."""
        if self.transport is not None:
            self.transport.resume_reading()

    @property
    def alive(self) -> bool:
        """Whether a request may be sent."""
        return self.transport is not None and not self.transport.is_closing()

    def abort(self) -> None:
        """Cut the connection; nobody is told."""
        self.receiver = None
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close the connection properly."""
        if self.transport is not None:
            self.transport.close()

    # --- httptools --------------------------------------------------------------------------------------------------

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._size += len(name) + len(value) + 4
        if self._size > MAX_HEADER or len(self._fields) >= MAX_FIELDS:
            raise httptools.HttpParserError(f"more than {MAX_FIELDS} fields or {MAX_HEADER} octets")
        self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # interim: not forwarded, the final one follows
            self._fields, self._size, self._reason = [], 0, b""
            return
        names = {name for name, _ in self._fields}
        bodiless = self._head_only or status in {204, 304}
        self._until_close = not bodiless and not names & {b"content-length", b"transfer-encoding"}
        receiver = self.receiver
        if receiver is None:
            return
        receiver.response_head(status, self._reason, self._fields)
        if bodiless:
            self._finish()

    def on_body(self, data: bytes) -> None:
        if self.receiver is not None and not self._ended:
            self.receiver.response_body(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200 and not self._ended and not self._until_close:
            self._finish()

    def _finish(self) -> None:
        self._ended = True
        receiver, self.receiver = self.receiver, None
        # The last piece may have filled a slow client's buffer.  That client is no reason to be deaf when idle, to the
        # origin's close and to the answer to the next request.
        self.resume()
        if receiver is not None:
            receiver.response_end(reusable=bool(self._parser.should_keep_alive()) and not self._until_close)

    def _fail(self, reason: str) -> None:
        receiver, self.receiver = self.receiver, None
        self.abort()
        if receiver is not None:
            receiver.response_lost(reason)


async def connect(
    target: Target, stub: AsyncStub, context: ssl.SSLContext | None, on_idle_loss: Callable[[Upstream], None]
) -> tuple[Upstream, Timing]:
    """Open a connection to *target*.

    Raises:
        UpstreamError: 502 or 504, with the step that failed.
    """
    timing, address, step = Timing(), "", "look-up"
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            began = time.perf_counter()
            answer = await stub.resolve(target.host)
            address = answer.rdata[0] if len(answer.rdata) == 1 else answer.rdata[int(began * 1e6) % len(answer.rdata)]
            resolved = time.perf_counter()
            timing.dns = 0.0 if answer.cached else (resolved - began) * 1000
            step = "connection"
            transport, protocol = await loop.create_connection(lambda: Upstream(on_idle_loss), address, target.port)
            connected = time.perf_counter()
            timing.connect = (connected - resolved) * 1000
            protocol.address = f"{address}:{target.port}"
            if target.tls:
                step = "TLS handshake"
                try:
                    secured = await loop.start_tls(transport, protocol, context, server_hostname=target.host)  # type: ignore[arg-type]  # asyncio's stubs are narrower than asyncio
                except BaseException:
                    transport.abort()
                    raise
                if secured is None:
                    raise ConnectionResetError("closed by the origin")
                protocol.connection_made(secured)
                timing.tls = (time.perf_counter() - connected) * 1000
            return protocol, timing
    except StubError as error:
        raise UpstreamError(502, f"name: {error}", str(target)) from None
    except TimeoutError:
        raise UpstreamError(504, f"{step}: not within {CONNECT_TIMEOUT:g} s", str(target), address) from None
    except ssl.SSLCertVerificationError as error:
        raise UpstreamError(502, f"certificate: {error.verify_message}", str(target), address) from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
        raise UpstreamError(502, f"{step}: {reason}", str(target), address) from None
