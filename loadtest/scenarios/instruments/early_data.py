"""Measures in memory how many flights TLS 1.3 early data saves, and whether a server accepts a replay of it.

Sources: RFC 8446 sections 2.3 and 8.

Python's `ssl` cannot send early data, so this module calls the OpenSSL library of the package `cryptography`.  A flight
is everything that one side sends before it has to wait for the other side.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.hazmat.bindings.openssl.binding import Binding

REQUEST, RESPONSE = b"POST /transfer HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"
#: SSL_OP_NO_ANTI_REPLAY of <openssl/ssl.h>; with this option, the server accepts a ticket more than once.
NO_ANTI_REPLAY = 1 << 24
#: SSL_READ_EARLY_DATA_SUCCESS of <openssl/ssl.h>.
SUCCESS = 1
#: Maximum number of bytes of early data that the server accepts on a connection.
MAX_EARLY = 16_384
#: Maximum number of flights in a handshake; a handshake with more flights has failed.
MAX_FLIGHTS = 10


class EarlyDataError(OSError):
    """A handshake in memory failed."""


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of early data and of its replay."""

    #: Number of round trips until the client has the response, excluding the TCP handshake.
    round_trips: int
    #: Number of round trips until the client has the response if the session is resumed without early data.
    round_trips_without: int
    #: Number of times that a server executes a request that is sent and then replayed, if it accepts each ticket once.
    executed: int
    #: Number of times that a server without protection against replay reads this request.
    executed_unprotected: int


def measure(pair: bytes) -> Found:
    """Send a request as early data, then send the recorded first flight again, as an attacker would.

    Args:
        pair: the server's key and certificate (PEM).

    Raises:
        EarlyDataError: a handshake failed, or the server did not accept early data.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "pair.pem")
        path.write_bytes(pair)
        with _site(path, 0) as protected, _site(path, NO_ANTI_REPLAY) as unprotected:
            without, _ = protected.ask(early=False)
            trips, flight = protected.ask(early=True)
            executed = 1 + protected.replay(flight)
            _, flight = unprotected.ask(early=True)
            return Found(trips, without, executed, 1 + unprotected.replay(flight))


class _End:
    """One end of a connection in memory."""

    def __init__(self, binding: Binding, context: Any, *, server: bool) -> None:
        self.lib, self.ffi = binding.lib, binding.ffi
        self.ssl = self.ffi.gc(self.lib.SSL_new(context), self.lib.SSL_free)
        self._in, self._out = (self.lib.BIO_new(self.lib.BIO_s_mem()) for _ in range(2))
        self.lib.SSL_set_bio(self.ssl, self._in, self._out)  # transfers ownership: SSL_free now frees both buffers
        (self.lib.SSL_set_accept_state if server else self.lib.SSL_set_connect_state)(self.ssl)

    def sent(self) -> bytes:
        """Return the bytes that this end has to send."""
        data = self.ffi.new("char[]", 1 << 16)
        return bytes(self.ffi.buffer(data, max(0, self.lib.BIO_read(self._out, data, len(data)))))

    def receive(self, data: bytes) -> None:
        """Process bytes from the other end."""
        self.lib.BIO_write(self._in, data, len(data))

    def read(self) -> bytes:
        """Return application data; this also continues the handshake."""
        data = self.ffi.new("char[]", 4096)
        return bytes(self.ffi.buffer(data, max(0, self.lib.SSL_read(self.ssl, data, len(data)))))

    def read_early(self) -> bytes:
        """Return early data; b"" if there is none, or if the server has rejected it."""
        data, size = self.ffi.new("char[]", 4096), self.ffi.new("size_t *")
        status = self.lib.SSL_read_early_data(self.ssl, data, len(data), size)
        return bytes(self.ffi.buffer(data, size[0])) if status == SUCCESS else b""

    def write(self, data: bytes, *, early: bool) -> None:
        """Send application data; if *early*, a client sends early data, a server sends before the client's Finished."""
        if early:
            ok = self.lib.SSL_write_early_data(self.ssl, data, len(data), self.ffi.new("size_t *")) == 1
        else:
            ok = self.lib.SSL_write(self.ssl, data, len(data)) == len(data)
        if not ok:
            raise EarlyDataError("expected OpenSSL to send application data, got an error")


class _Site:
    """A server that accepts early data, and a client with a session ticket from this server."""

    def __init__(self, pair: Path, options: int) -> None:
        self.binding = Binding()
        lib, ffi = self.binding.lib, self.binding.ffi
        self.client, self.server = (ffi.gc(lib.SSL_CTX_new(lib.TLS_method()), lib.SSL_CTX_free) for _ in range(2))
        path = str(pair).encode()
        loaded = lib.SSL_CTX_use_certificate_chain_file(self.server, path)
        if loaded != 1 or lib.SSL_CTX_use_PrivateKey_file(self.server, path, lib.SSL_FILETYPE_PEM) != 1:
            raise EarlyDataError("expected a certificate and its key")
        lib.SSL_CTX_set_max_early_data(self.server, MAX_EARLY)
        lib.SSL_CTX_set_options(self.server, options)

    def connect(self, session: Any = None) -> tuple[_End, _End]:
        """Return a client and a server before their handshake; the client resumes *session* unless it is None."""
        client = _End(self.binding, self.client, server=False)
        if session is not None:
            self.binding.lib.SSL_set_session(client.ssl, session)
        return client, _End(self.binding, self.server, server=True)

    def ticket(self) -> Any:
        """Run a full handshake and return the session, with the server's ticket."""
        client, server = self.connect()
        for _ in range(MAX_FLIGHTS):
            for end, peer in ((client, server), (server, client)):
                end.read()
                peer.receive(end.sent())
        lib, ffi = self.binding.lib, self.binding.ffi
        for end in (client, server):  # OpenSSL never resumes the session of a connection that was not closed properly
            lib.SSL_shutdown(end.ssl)
        return ffi.gc(lib.SSL_get1_session(client.ssl), lib.SSL_SESSION_free)

    def ask(self, *, early: bool) -> tuple[int, bytes]:
        """Resume a session and send the request; return the round trips needed and the client's first flight.

        The number of round trips includes the one that delivers the response.  The first flight is what the client
        sent before it received anything, as bytes on the wire.
        """
        client, server = self.connect(self.ticket())
        if early:
            client.write(REQUEST, early=True)
        client.read()
        first = flight = client.sent()
        asked = early
        for trip in range(1, MAX_FLIGHTS):
            server.receive(flight)
            if (server.read_early() if trip == 1 else server.read()) == REQUEST:
                server.write(RESPONSE, early=trip == 1)
            client.receive(server.sent())
            if client.read() == RESPONSE:
                return trip, first
            if not asked:
                client.write(REQUEST, early=False)
                asked = True
            flight = client.sent()
        raise EarlyDataError(f"expected a response within {MAX_FLIGHTS} flights, got none")

    def replay(self, flight: bytes) -> bool:
        """Send a recorded first flight to a new connection; return whether the server reads the request again."""
        _, server = self.connect()
        server.receive(flight)
        return server.read_early() == REQUEST


@contextmanager
def _site(pair: Path, options: int) -> Iterator[_Site]:
    yield _Site(pair, options)
