"""Measures how long an invalid certificate is still accepted, on three connection paths.

The paths are a new handshake, a connection opened earlier, and a resumed TLS session.  The certificate is the server's,
or that of this client if it has a key pair.  Connections use Python's ``ssl`` module directly.
"""

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from drills.rehearsal import extend
from experiments import Lane, Span
from renewal.proof import load_pair
from wireformat.http1 import HttpError, get
from wireformat.http1_reader import ResponseReader

NEW, POOLED, RESUMED = "new handshake", "pooled connection", "resumed session"
#: All paths, in the order in which reports list them.
PATHS = (NEW, POOLED, RESUMED)
#: Interval between rounds of requests, and time-out of a socket operation, in seconds.
EVERY, TIMEOUT = 0.5, 3.0


@dataclass(frozen=True, slots=True)
class Tried:
    """One request on one path; `at` is its start, in seconds on the run's timeline."""

    at: float
    path: str
    #: Reason of the failure; "" if the request succeeded.
    error: str


class Paths:
    """Sends requests on all paths from a background thread, from `start` until `stop`."""

    def __init__(
        self,
        name: str,
        trust: Path,
        now: Callable[[], float],
        port: int = 443,
        address: str = "",
        *,
        pair: bytes = b"",
        every: float = EVERY,
    ) -> None:
        """Prepare requests to a server; `start` sends them.

        Args:
            name: host name, which the server's certificate must have.
            trust: PEM file with the trusted roots.
            now: returns the time on the run's timeline, in seconds.
            port: TCP port of the server.
            address: IP address of the server; by default, the system's resolver resolves *name*.
            pair: private key and chain of this client, in PEM; if empty, connect without a client certificate.
            every: interval between rounds of requests, in seconds.
        """
        self.name, self.port, self._address, self._now = name, port, address or name, now
        self.every, self.tried = every, list[Tried]()
        self._context = ssl.create_default_context(cafile=trust)
        if pair:
            load_pair(self._context, pair)
        self._pooled: ssl.SSLSocket | None = None
        self._session: ssl.SSLSession | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Open the pooled connection, obtain a TLS session for resumption, and start the thread; this call blocks.

        Raises:
            OSError: a connection failed.
        """
        self._pooled = self._connect()
        self._ask(self._pooled)
        with self._connect() as first:
            self._ask(first)
            self._session = first.session  # read after a response, since TLS 1.3 sends tickets after the handshake
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and close the pooled connection; this call blocks for at most one round of requests."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._pooled is not None:
            self._pooled.close()

    def exposure(self, path: str, since: float, until: float = float("inf")) -> float:
        """Return how long, in seconds, requests on *path* kept succeeding after *since*.

        This is the time from *since* to the last success before *until*, or 0 if no request succeeded.
        """
        good = [each.at for each in self.tried if each.path == path and not each.error and since <= each.at < until]
        return max(good) - since if good else 0.0

    def lane(self, path: str) -> Lane:
        """Return the chart lane of *path*: green while requests succeed, red while they fail."""
        spans: list[Span] = []
        for each in (t for t in self.tried if t.path == path):
            extend(spans, Span(each.at, each.at + self.every, each.error or "ok", "bad" if each.error else "good"))
        return Lane(path, spans)

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            for path in PATHS:
                began = self._now()
                try:
                    {NEW: self._new, POOLED: self._kept, RESUMED: self._resume}[path]()
                except (OSError, ValueError) as error:
                    reason = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else str(error)
                    self.tried.append(Tried(began, path, reason or type(error).__name__))
                else:
                    self.tried.append(Tried(began, path, ""))

    def _new(self) -> None:
        with self._connect() as sock:
            self._ask(sock)

    def _kept(self) -> None:
        if self._pooled is None:
            raise ConnectionError("the connection was closed")
        try:
            self._ask(self._pooled)
        except OSError:
            with suppress(OSError):
                self._pooled.close()
            self._pooled = None
            raise

    def _resume(self) -> None:
        with self._connect(self._session) as sock:
            if not sock.session_reused:
                raise ConnectionError("the server did not resume the session")
            self._ask(sock)
            self._session = sock.session

    def _connect(self, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection((self._address, self.port), TIMEOUT)
        try:
            return self._context.wrap_socket(plain, server_hostname=self.name, session=session)
        except BaseException:
            plain.close()
            raise

    def _ask(self, sock: ssl.SSLSocket) -> None:
        sock.sendall(get(self.name, "/items", "User-Agent: firstbyte-drill"))
        response = ResponseReader()
        try:
            while not response.complete:
                if data := sock.recv(65536):
                    response.feed(data)
                else:
                    response.end()
        except HttpError as error:
            raise ConnectionError(str(error)) from None
        if response.status != 200:
            raise ConnectionError(f"status {response.status} {response.reason.decode('latin-1')}")
