"""TLS for accepted connections: a transport between the socket's transport and the protocol that reads the plaintext.

asyncio's TLS does not report failed handshakes and sends no alert for them (cpython#98078), and uvloop's TLS allocates
a read buffer of 256 KiB per connection. This transport sends OpenSSL's alert, reports why the handshake failed, and
allocates no buffers in addition to OpenSSL's.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from wireformat.tls import TlsConnection

#: Maximum plaintext read in one call, in bytes: the largest TLS record.
_RECORD = 16384
#: Placeholder for the reader of a connection whose handshake is not complete yet.
_NO_READER = asyncio.Protocol()


class Client(Protocol):
    """User of a TLS connection, created before the handshake begins."""

    def negotiated(self, protocol: str | None, /) -> asyncio.Protocol:
        """Return the protocol for the plaintext; called after the handshake, with the ALPN result *protocol*."""

    def never_connected(self) -> None:
        """Handle the end of the connection before its handshake was complete."""


class TlsTransport(asyncio.Protocol):
    """One TLS connection: protocol of the socket's transport, and transport of a `Client`."""

    __slots__ = (
        "_client",
        "_closing",
        "_connected",
        "_last",
        "_on_end",
        "_on_failure",
        "_paused",
        "_peer",
        "_raw",
        "_reader",
        "_timer",
        "_tls",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        client: Client,
        on_failure: Callable[[str], None],
        on_end: Callable[["TlsTransport"], None],
    ) -> None:
        """Create a connection that waits for a ClientHello.

        Args:
            context: server-side TLS context.
            client: receives the plaintext once the handshake is complete.
            on_failure: called with a one-word reason if the handshake fails.
            on_end: called when the handshake has ended, whether or not it succeeded.
        """
        self._tls = TlsConnection(context, None)
        self._client = client
        #: Protocol that receives the plaintext, once the handshake is complete.
        self._reader = _NO_READER
        self._on_failure, self._on_end = on_failure, on_end
        self._raw: Any = None
        #: The client's address, stored because the socket no longer has it after the client has reset the connection.
        self._peer: Any = None
        self._connected = self._closing = self._paused = self._last = False

    def __repr__(self) -> str:
        return f"<TlsTransport {self._tls!r}{' closing' if self._closing else ''}>"

    # --- the socket's protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw, self._peer = transport, transport.get_extra_info("peername")
        if self._closing:
            self._raw.close()

    def data_received(self, data: bytes) -> None:
        tls = self._tls
        tls.receive(data)
        try:
            if not self._connected and not self._shake_hands():
                return
            plain = tls.object.read(_RECORD)
            if not tls.pending and not tls.object.pending():
                self._deliver(plain)  # fast path: almost always a single record
                return
            parts = [plain]
            while parts[-1] and (tls.pending or tls.object.pending()) and (more := tls.read()) is not None:
                parts.append(more)
            self._deliver(b"".join(parts), end=not parts[-1])
        except ssl.SSLWantReadError:
            self._flush()  # send what OpenSSL has generated, such as the reply to a key update
        except ssl.SSLZeroReturnError:
            self._deliver(b"", end=True)
        except ssl.SSLError:
            self._flush()  # send the TLS alert that OpenSSL has generated
            self.abort()

    def eof_received(self) -> bool:
        if not self._connected:
            self.fail("closed_by_client")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._connected:
            self._closing = True
            self._reader.connection_lost(exc)
        else:
            if not self._closing:
                self._on_failure("reset_by_client")
                self._closing = True
            self._on_end(self)
            self._client.never_connected()

    def pause_writing(self) -> None:
        if self._connected:
            self._reader.pause_writing()

    def resume_writing(self) -> None:
        if self._connected:
            self._reader.resume_writing()

    # --- the client's transport ---------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return extra information from the socket's transport, or OpenSSL's object for ``ssl_object``."""
        if name == "peername":
            return self._peer or default
        return self._tls.object if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the amount of buffered ciphertext, in bytes, at which the client's `pause_writing` is called."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return the size of the ciphertext write buffer in bytes."""
        return int(self._raw.get_write_buffer_size())

    def write(self, data: bytes) -> None:
        """Encrypt and send *data*."""
        if self._closing:
            return
        write = self._tls.object.write
        try:
            sent = write(data)
            if sent < len(data):  # OpenSSL encrypts one TLS record per call
                view = memoryview(data)
                while sent < len(data):
                    sent += write(view[sent:])
        except ssl.SSLError:
            self.abort()
            return
        if self._last:
            self._tls.close()
        self._raw.write(self._tls.to_send())

    def write_last(self, data: bytes) -> None:
        """Send *data* and close_notify in one write; only `close` may be called afterwards."""
        if not self._closing:
            self._last = True
            self.write(data)

    def can_write_eof(self) -> bool:
        """Return False, because `close` ends both directions of a TLS connection."""
        return False

    def is_closing(self) -> bool:
        """Return whether the connection is closing, so that nothing more can be sent."""
        return self._closing

    def pause_reading(self) -> None:
        """Stop reading from the socket."""
        if not self._paused and not self._raw.is_closing():
            self._paused = True
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading from the socket."""
        if self._paused and not self._raw.is_closing():
            self._paused = False
            self._raw.resume_reading()

    def close(self) -> None:
        """Send pending data and close_notify; close without waiting for the peer's alert (RFC 8446 section 6.1)."""
        if not self._closing:
            self._closing = True
            if not self._last:  # `write_last` has already sent close_notify
                self._tls.close()
                self._flush()
            if self._raw is not None:
                self._raw.close()

    def abort(self) -> None:
        """Abort the connection without sending close_notify."""
        self._closing = True
        if self._raw is not None:
            self._raw.abort()

    def fail(self, reason: str) -> None:
        """Abort the handshake and report *reason*; do nothing if the handshake has already ended."""
        if not self._closing and not self._connected:
            self._on_failure(reason)
            self.abort()

    # --- internal -----------------------------------------------------------------------------------------------------

    def _shake_hands(self) -> bool:
        """Advance the handshake; return whether application data is ready to be read."""
        try:
            established = self._tls.handshake()
        except ssl.SSLError as error:
            self._flush()  # send the TLS alert that OpenSSL has generated
            self._on_failure((error.reason or "other").lower().replace(" ", "_"))
            self._closing = True
            self._raw.close()
            return False
        if not established:
            self._flush()
            return False
        # TLS 1.3 session tickets are sent with the first response. TLS 1.2's Finished must be sent immediately.
        if not self._tls.pending:
            self._flush()
        self._connected = True
        self._on_end(self)
        self._reader = self._client.negotiated(self._tls.object.selected_alpn_protocol())
        self._reader.connection_made(self)  # type: ignore[arg-type]  # this class has all transport methods that clients call
        return bool(self._tls.pending)

    def _deliver(self, plain: bytes, *, end: bool = False) -> None:
        if not self._closing:
            if plain:
                self._reader.data_received(plain)
            if end or not plain:
                self.close()

    def _flush(self) -> None:
        if (data := self._tls.to_send()) and not self._raw.is_closing():
            self._raw.write(data)
