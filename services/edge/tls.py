"""TLS on accepted connections: a transport for `edge.client` above the one of the socket.

asyncio's own TLS reports nothing of a handshake that fails and sends no alert for it (cpython#98078), and uvloop's keeps
a read buffer of 256 KiB for each connection.  Here a failed handshake is answered with OpenSSL's alert and reported with
its reason, and an idle connection costs what OpenSSL needs.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

from edge.client import Client
from wireformat.tls import TlsConnection

#: Plaintext bytes read at one time: the largest record.
_RECORD = 16384


class TlsTransport(asyncio.Protocol):
    """One TLS connection: the protocol of a socket's transport, and the transport of a `Client`."""

    __slots__ = (
        "_client",
        "_closing",
        "_connected",
        "_last",
        "_on_end",
        "_on_failure",
        "_paused",
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
        """Make one that waits for a ClientHello.

        Args:
            context: of a server.
            client: gets the connection once the handshake is complete.
            on_failure: hears why the handshake failed, in one word.
            on_end: hears that the handshake is over, either way.
        """
        self._tls = TlsConnection(context, None)
        self._client = client
        #: What gets the plaintext: the client, or HTTP/2 in its place.
        self._reader: asyncio.Protocol = client
        self._on_failure, self._on_end = on_failure, on_end
        self._raw: Any = None
        self._connected = self._closing = self._paused = self._last = False

    def __repr__(self) -> str:
        return f"<TlsTransport {self._tls!r}{' closing' if self._closing else ''}>"

    # --- the socket's protocol --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = transport

    def data_received(self, data: bytes) -> None:
        tls = self._tls
        tls.receive(data)
        try:
            if not self._connected and not self._shake_hands():
                return
            plain = tls.object.read(_RECORD)
            if not tls.pending and not tls.object.pending():
                self._deliver(plain)  # one record, as nearly always
                return
            parts = [plain]
            while parts[-1] and (tls.pending or tls.object.pending()) and (more := tls.read()) is not None:
                parts.append(more)
            self._deliver(b"".join(parts), end=not parts[-1])
        except ssl.SSLWantReadError:
            self._flush()  # part of a record, or a key update to answer
        except ssl.SSLZeroReturnError:
            self._deliver(b"", end=True)
        except ssl.SSLError:
            self._flush()  # the alert
            self.abort()

    def eof_received(self) -> bool:
        if not self._connected:
            self.fail("closed_by_client")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        if self._connected:
            self._reader.connection_lost(exc)
        else:
            self._on_end(self)
            self._client.never_connected()

    def pause_writing(self) -> None:
        if self._connected:
            self._reader.pause_writing()

    def resume_writing(self) -> None:
        if self._connected:
            self._reader.resume_writing()

    # --- the client's transport -------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the socket's transport knows, and OpenSSL's object as ``ssl_object``."""
        return self._tls.object if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the bytes of ciphertext at which the client is told to pause."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return the bytes of ciphertext that wait to be sent."""
        return int(self._raw.get_write_buffer_size())

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if self._closing:
            return
        write = self._tls.object.write
        try:
            sent = write(data)
            if sent < len(data):  # one record at a time
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
        """Send *data* and close_notify in one go; only `close` may follow."""
        if not self._closing:
            self._last = True
            self.write(data)

    def can_write_eof(self) -> bool:
        """Half-closing is not for the client to do: `close` does it."""
        return False

    def is_closing(self) -> bool:
        """Return whether nothing can be sent any more."""
        return self._closing

    def pause_reading(self) -> None:
        """Read no more from the socket."""
        if not self._paused and not self._raw.is_closing():
            self._paused = True
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Read from the socket again."""
        if self._paused and not self._raw.is_closing():
            self._paused = False
            self._raw.resume_reading()

    def close(self) -> None:
        """Send close_notify after everything else, and close; the client's is not waited for (RFC 8446 section 6.1)."""
        if not self._closing:
            self._closing = True
            self._tls.close()  # unless `write_last` did
            self._flush()
            self._raw.close()

    def abort(self) -> None:
        """Cut the connection."""
        self._closing = True
        if self._raw is not None:
            self._raw.abort()

    def fail(self, reason: str) -> None:
        """End the handshake; it failed for this reason."""
        if not self._closing and not self._connected:
            self._on_failure(reason)
            self.abort()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _shake_hands(self) -> bool:
        """Do what can be done of the handshake; return whether there is data to read."""
        try:
            established = self._tls.handshake()
        except ssl.SSLError as error:
            self._flush()  # the alert
            self._on_failure((error.reason or "other").lower().replace(" ", "_"))
            self._closing = True
            self._raw.close()
            return False
        if not established:
            self._flush()
            return False
        # TLS 1.3's session tickets go out with the first response.  TLS 1.2's Finished cannot wait for a request.
        if not self._tls.pending:
            self._flush()
        self._connected = True
        self._on_end(self)
        self._reader = self._client.negotiated(self._tls.object.selected_alpn_protocol())
        self._reader.connection_made(self)  # type: ignore[arg-type]  # all of a transport that a client uses
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
