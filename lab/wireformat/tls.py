"""TLS over memory (RFC 8446, RFC 5246): bytes from the peer go in, bytes for the peer come out.  OpenSSL does the rest."""

import contextlib
import ssl
from pathlib import Path

#: Bytes of plaintext in the largest record (RFC 8446 section 5.1): what one `read` can return.
MAX_RECORD = 16384
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_context(trust: Path | None, version: str | None = None) -> ssl.SSLContext:
    """Return a verifying client context for HTTP/1.1.

    Args:
        trust: root certificates (PEM); None uses the system's.
        version: the only TLS version allowed, ``1.2`` or ``1.3``; None allows both.

    Raises:
        ValueError: *version* is neither.
        OSError: *trust* cannot be read, or holds no certificates (`ssl.SSLError`).
    """
    if version is not None and version not in VERSIONS:
        raise ValueError(f"expected TLS version 1.2 or 1.3, got {version!r}")
    context = ssl.create_default_context(cafile=trust)
    context.set_alpn_protocols(["http/1.1"])
    if version is not None:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


class TlsConnection:
    """One end of a TLS connection; after each call, send what `to_send` returns.

    Every method raises `ssl.SSLError` when TLS fails; `to_send` then holds the alert.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str | None, session: ssl.SSLSession | None = None) -> None:
        """Make an end that has sent nothing yet.

        Args:
            context: of a client or a server.
            server_name: a client's SNI and the name that the certificate must have; None makes a server.
            session: a client's earlier session with the same context, to be resumed.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
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
        """Bytes received that OpenSSL has not yet read."""
        return self._incoming.pending

    @property
    def session(self) -> ssl.SSLSession | None:
        """The session, once it can be resumed; TLS 1.3 sends tickets after the handshake."""
        session = self.object.session
        if session is None or not (session.has_ticket or (self.object.version() == "TLSv1.2" and session.id)):
            return None
        return session

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer."""
        self._incoming.write(data)

    def end(self) -> None:
        """Take the end of the peer's bytes."""
        self._incoming.write_eof()

    def to_send(self) -> bytes:
        """Return and forget the bytes for the peer."""
        return self._outgoing.read()

    def handshake(self) -> bool:
        """Do what can be done of the handshake; return whether it is complete."""
        if not self.established:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.object.do_handshake()
                self.established = True
        return self.established

    def write(self, data: bytes) -> None:
        """Encrypt application data."""
        self.object.write(data)

    def read(self) -> bytes | None:
        """Return decrypted data of at most one record; empty after close_notify or the end, None until more arrives."""
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
            with contextlib.suppress(ssl.SSLError):  # OpenSSL asks for the peer's close_notify
                self.object.unwrap()
