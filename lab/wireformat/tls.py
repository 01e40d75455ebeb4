"""In-memory TLS (no sockets), based on OpenSSL (RFC 8446, RFC 5246): the caller sends and receives the bytes."""

import ssl
from collections.abc import Callable
from pathlib import Path

#: Maximum plaintext in one record, and therefore in one `read`, in bytes (RFC 8446 section 5.1).
MAX_RECORD = 16384
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_context(trust: Path | None, version: str | None = None) -> ssl.SSLContext:
    """Return a client context that verifies certificates and offers HTTP/1.1.

    Args:
        trust: root certificates (PEM); None uses the system's.
        version: the only TLS version allowed, ``1.2`` or ``1.3``; None allows both.

    Raises:
        ValueError: *version* is neither ``1.2`` nor ``1.3``.
        OSError: *trust* cannot be read, or contains no certificates (`ssl.SSLError`).
    """
    if version is not None and version not in VERSIONS:
        raise ValueError(f"expected TLS version 1.2 or 1.3, got {version!r}")
    context = ssl.create_default_context(cafile=trust)
    context.set_alpn_protocols(["http/1.1"])
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


class TlsConnection:
    """One end of a TLS connection; after each method call, the caller must send the bytes from `to_send`.

    Every method raises `ssl.SSLError` if TLS fails; `to_send` then returns the alert.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str | None, session: ssl.SSLSession | None = None) -> None:
        """Create an end that has not sent anything yet.

        Args:
            context: client or server context.
            server_name: SNI and required certificate name for a client; None creates a server.
            session: earlier session of a client with the same context, to be resumed.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        #: Return the bytes to send to the peer, and clear the buffer.
        self.to_send: Callable[[], bytes] = self._outgoing.read
        #: Store bytes received from the peer.
        self.receive: Callable[[bytes], object] = self._incoming.write
        self.object = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_name is None,
            server_hostname=server_name,
            session=session,
        )
        self.established = self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "established" if self.established else "handshake"
        return f"<TlsConnection {self.object.version()} {state}>"

    @property
    def pending(self) -> int:
        """Number of received bytes that OpenSSL has not processed yet."""
        return self._incoming.pending

    @property
    def session(self) -> ssl.SSLSession | None:
        """Session that can be resumed, if available; TLS 1.3 sends session tickets after the handshake."""
        session = self.object.session
        if session is None or not (session.has_ticket or (self.object.version() == "TLSv1.2" and session.id)):
            return None
        return session

    def end(self) -> None:
        """Record that the peer has closed the transport connection."""
        self._incoming.write_eof()

    def handshake(self) -> bool:
        """Advance the handshake; return whether it is complete."""
        if not self.established:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                return False
            self.established = True
        return True

    def write(self, data: bytes) -> None:
        """Encrypt application data."""
        self.object.write(data)

    def read(self) -> bytes | None:
        """Return the plaintext of at most one record; empty at the end of the data, None if more bytes are needed."""
        try:
            return self.object.read(MAX_RECORD)
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLZeroReturnError:
            return b""

    def close(self) -> None:
        """Send close_notify once, without waiting for the peer's (RFC 8446 section 6.1)."""
        if self.established and not self._closed:
            self._closed = True
            try:  # noqa: SIM105 - contextlib.suppress takes 1 µs more per connection
                self.object.unwrap()
            except ssl.SSLError:
                pass  # raised because the peer has not sent its close_notify yet
