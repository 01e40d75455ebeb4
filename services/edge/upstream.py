"""Connection to an origin: sends a request and streams the response back (RFC 9112).

This asyncio protocol does not select origins, retry requests or pool connections.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Protocol

from edge.bodies import Body, BodyError, LengthBody, UntilClose, response_body
from edge.errors import BadResponseError, UpstreamError
from edge.heads import MAX_HEAD, ResponseHead, response_head
from edge.pool import Connection
from edge.remembered import Remembered
from edge.targets import Target
from stub import AsyncStub, StubError

#: Write buffer size, in bytes, above which the sender of the data is paused.
HIGH_WATER = 256 * 1024
#: Maximum number of interim responses (1xx) before the final one; an origin that sends more is treated as faulty.
MAX_INTERIM = 16

#: Cached parser for response heads, since origins repeat the same head often.
read_head: Remembered[ResponseHead] = Remembered(response_head)


class Receiver(Protocol):
    """Callbacks for the response of one request."""

    #: Whether the request method is HEAD, whose response has no body.
    head_only: bool

    def response_interim(self, head: ResponseHead) -> None:
        """Handle an interim response (1xx); the final response follows."""

    def response_begins(self, head: ResponseHead, payload: bytes, *, bodiless: bool, whole: bool) -> None:
        """Handle the final head and the first *payload* of the body; *whole* means that the response is complete."""

    def response_body(self, payload: bytes) -> None:
        """Handle part of the response body."""

    def response_end(self, *, reusable: bool) -> None:
        """Handle the end of the response; *reusable* says whether the connection accepts another request."""

    def response_lost(self, reason: str) -> None:
        """Handle a connection that was closed or sent malformed data before the response was complete."""

    def switched(self, head: ResponseHead, data: bytes) -> None:
        """Handle a 101 response; *data* are the first bytes of the new protocol."""

    def tunnelled(self, data: bytes) -> None:
        """Handle bytes of the protocol that both sides have switched to."""

    def upstream_writable(self, *, writable: bool) -> None:
        """Resume or pause the request body, depending on whether the origin's send buffer has room."""


@dataclass(slots=True)
class Timing:
    """Duration of each step of opening a connection, in milliseconds; 0 for steps that were not needed."""

    dns: float = 0.0
    connect: float = 0.0
    tls: float = 0.0


class Upstream(asyncio.Protocol):
    """Connection to an origin that carries one request at a time."""

    def __init__(self, target: Target, on_idle_loss: Callable[["Upstream"], None]) -> None:
        self.target = target
        #: The pool's entry for this connection; None if the connection is not pooled.
        self.pooled: Connection | None = None
        self.address = ""
        #: Serial number of the origin's certificate; 0 without TLS.
        self.certificate = 0
        self.transport: asyncio.Transport | None = None
        self.receiver: Receiver | None = None
        #: Whether part of the response has been received; if so, the request must not be retried.
        self.began = False
        self._on_idle_loss = on_idle_loss
        self._beginning = b""
        self._body: Body | None = None
        self._keep_alive = False
        self._interim = 0
        self._tunnel = False
        self._paused = False
        #: Whether the origin closed the connection cleanly: with FIN, or with close_notify over TLS.
        self._announced = False

    # --- asyncio ----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # asyncio passes a stream transport
        self.transport.set_write_buffer_limits(HIGH_WATER)  # type: ignore[union-attr]  # the transport is not None here

    def data_received(self, data: bytes) -> None:
        receiver = self.receiver
        if receiver is None:  # data without a request in flight: the connection must not be reused
            self.abort()
            return
        self.began = True
        if self._tunnel:
            receiver.tunnelled(data)
        elif self._body is None:
            self._head(receiver, data)
        else:
            self._payload(receiver, self._body, data)

    def eof_received(self) -> bool:
        self._announced = self.transport is not None and _announced(self.transport.get_extra_info("ssl_object"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        receiver, self.receiver = self.receiver, None
        self.transport = None
        if receiver is None:
            self._on_idle_loss(self)
        elif isinstance(self._body, UntilClose) and self._announced and exc is None:
            receiver.response_end(reusable=False)
        else:
            receiver.response_lost(f"the origin closed: {exc}" if exc else "the origin closed the connection")

    def pause_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.upstream_writable(writable=False)

    def resume_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.upstream_writable(writable=True)

    # --- called by exchanges and health checks ------------------------------------------------------------------------

    def send_request(self, head: bytes, receiver: Receiver) -> None:
        """Send a request head; send the request body with `write`."""
        self.receiver = receiver
        self.began, self._interim, self._beginning, self._body = False, 0, b"", None
        self.write(head)

    def write(self, data: bytes) -> None:
        """Send part of the request body."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def pause(self) -> None:
        """Stop reading from the origin, because the client reads slowly."""
        if self.transport is not None and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Resume reading from the origin."""
        if self.transport is not None and self._paused:
            self._paused = False
            self.transport.resume_reading()

    @property
    def alive(self) -> bool:
        """Whether the connection is open and can carry a request."""
        return self.transport is not None and not self.transport.is_closing()

    def abort(self) -> None:
        """Cut the connection; the receiver gets no further callbacks."""
        self.receiver = None
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Close the connection after sending buffered data; the receiver gets no further callbacks."""
        self.receiver = None
        if self.transport is not None:
            self.transport.close()

    # --- the response -----------------------------------------------------------------------------------------------

    def _head(self, receiver: Receiver, data: bytes) -> None:
        if self._beginning:
            data, self._beginning = self._beginning + data, b""
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > MAX_HEAD:
                    self._fail(f"expected a head of at most {MAX_HEAD} bytes, got {len(data)} bytes without an end")
                elif b"HTTP/1."[: len(data)] != data[:7]:
                    self._fail(f"expected an HTTP response, got {data[:40]!r}")
                self._beginning = data
                return
            try:
                head = read_head(data[:end])
            except BadResponseError as error:
                self._fail(str(error))
                return
            if head.status >= 200:
                break
            if head.status == 101:
                self._tunnel = True
                receiver.switched(head, data[end:])
                return
            data = data[end:]
            self._interim += 1
            if self._interim > MAX_INTERIM:
                self._fail(f"expected at most {MAX_INTERIM} interim responses")
                return
            receiver.response_interim(head)
            if not data:
                return
        self._begin(receiver, head, data[end:])

    def _begin(self, receiver: Receiver, head: ResponseHead, data: bytes) -> None:
        bodiless = receiver.head_only or head.status in {204, 304}
        body = LengthBody(0) if bodiless else response_body(head.framing)
        self._body, self._keep_alive = body, head.keep_alive
        try:
            payload = body.feed(data)
        except BodyError as error:
            self._fail(str(error))
            return
        if body.done:
            self.receiver = None
            receiver.response_begins(head, payload, bodiless=bodiless, whole=True)
            self._end(receiver, body)
        else:
            receiver.response_begins(head, payload, bodiless=bodiless, whole=False)

    def _payload(self, receiver: Receiver, body: Body, data: bytes) -> None:
        try:
            payload = body.feed(data)
        except BodyError as error:
            self._fail(str(error))
            return
        if payload:
            receiver.response_body(payload)
        if body.done and self.receiver is not None:
            self.receiver = None
            self._end(receiver, body)

    def _end(self, receiver: Receiver, body: Body) -> None:
        # The last write may have filled a slow client's buffer and paused this connection. An idle connection must
        # detect that the origin closes it, and must be able to read the next response.
        self.resume()
        receiver.response_end(reusable=self._keep_alive and not body.rest)

    def _fail(self, reason: str) -> None:
        receiver, self.receiver = self.receiver, None
        self.abort()
        if receiver is not None:
            receiver.response_lost(reason)


def _announced(tls: ssl.SSLObject | None) -> bool:
    """Return whether the origin closed cleanly: any FIN without TLS, close_notify with TLS.

    asyncio also calls `eof_received` for a FIN without close_notify.
    """
    if tls is None:
        return True
    try:
        return tls.read(1) == b""
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False


async def connect(
    target: Target,
    stub: AsyncStub,
    context: ssl.SSLContext | None,
    on_idle_loss: Callable[[Upstream], None],
    timeout: float,
    revoked: Container[int] = frozenset(),
) -> tuple[Upstream, Timing]:
    """Open a connection to *target* within *timeout* seconds, trying all addresses of its name.

    Args:
        target: the origin.
        stub: resolves the target's name.
        context: TLS context of the connection; None without TLS.
        on_idle_loss: called when the origin closes the connection while no request is using it.
        timeout: maximum duration in seconds.
        revoked: serial numbers of revoked certificates; an origin that presents one of them is rejected.

    Raises:
        UpstreamError: the connection failed (502) or timed out (504); the reason names the step.
    """
    timing, address, step = Timing(), "", "look-up"
    try:
        async with asyncio.timeout(timeout) as whole:
            began = time.perf_counter()
            answer = await stub.resolve(target.host)
            resolved = time.perf_counter()
            timing.dns = 0.0 if answer.cached else (resolved - began) * 1000
            first = int(began * 1e6) % len(answer.rdata)
            addresses = [str(each) for each in (*answer.rdata[first:], *answer.rdata[:first])]
            for number, address in enumerate(addresses):
                step = "connection"
                left = (whole.when() or 0) - asyncio.get_running_loop().time()
                try:
                    async with asyncio.timeout(left / (len(addresses) - number)):
                        found = await _connect_to(address, target, context, on_idle_loss, timing)
                        _check_certificate(found[0], revoked)
                        return found
                except (OSError, TimeoutError):
                    if number + 1 == len(addresses):
                        raise
            raise UpstreamError(502, "name: no address", str(target))
    except StubError as error:
        raise UpstreamError(502, f"name: {error}", str(target)) from None
    except _HandshakeError as error:
        raise UpstreamError(502, str(error), str(target), address) from None
    except TimeoutError:
        step = "TLS handshake" if timing.connect and target.tls else step
        raise UpstreamError(504, f"{step}: not within {timeout:g} s", str(target), address) from None
    except OSError as error:
        raise UpstreamError(502, f"{step}: {_reason(error)}", str(target), address) from None


class _HandshakeError(OSError):
    """The TLS handshake with an origin failed."""


async def _connect_to(
    address: str,
    target: Target,
    context: ssl.SSLContext | None,
    on_idle_loss: Callable[[Upstream], None],
    timing: Timing,
) -> tuple[Upstream, Timing]:
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    transport, protocol = await loop.create_connection(lambda: Upstream(target, on_idle_loss), address, target.port)
    connected = time.perf_counter()
    timing.connect = (connected - began) * 1000
    protocol.address = f"{address}:{target.port}"
    if target.tls:
        try:
            secured = await loop.start_tls(
                transport, protocol, context, server_hostname=target.host  # type: ignore[arg-type]  # typeshed declares too narrow a type
            )  # fmt: skip
            if secured is None:
                raise ConnectionResetError("closed by the origin")
        except ssl.SSLCertVerificationError as error:
            transport.abort()
            raise _HandshakeError(f"certificate: {error.verify_message}") from None
        except OSError as error:
            transport.abort()
            raise _HandshakeError(f"TLS handshake: {_reason(error)}") from None
        except BaseException:
            transport.abort()
            raise
        protocol.connection_made(secured)
        protocol.certificate = int((secured.get_extra_info("peercert") or {}).get("serialNumber", "0"), 16)
        timing.tls = (time.perf_counter() - connected) * 1000
    return protocol, timing


def _check_certificate(upstream: Upstream, revoked: Container[int]) -> None:
    if upstream.certificate in revoked:
        upstream.abort()
        raise _HandshakeError(f"certificate: serial number {upstream.certificate:x} is revoked")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror or error)
