"""Measures one request on real sockets.  Clock readings and bookkeeping take place between the timed phases."""

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from linuxnet import sock_diag
from linuxnet.tcp_info import congestion_control, tcp_info
from stub import Stub, StubError
from waterfall.errors import BadCertificateError, BadURLError, ConnectError, NameLookupError, ResponseError
from waterfall.keylog import KeyLog
from waterfall.model import Phase, Trace
from waterfall.tls import TlsSocket, describe
from wireformat.http1 import HttpError, get
from wireformat.http1_reader import ResponseReader
from wireformat.tls import client_context

#: Default timeout of one step without a response, in seconds.
TIMEOUT = 10.0
#: Timeout for the server to close its side of the connection, in seconds.
CLOSE_TIMEOUT = 2.0
#: Polling interval while a connection is in CLOSING, in seconds; short compared with the lab's round-trip times.
CLOSING_POLL = 0.001
#: Maximum size of a response body, in bytes.
MAX_BODY = 1 << 30
AGENT = "firstbyte"
#: Server-Timing entries of the edge whose descriptions are recorded, each with its key in the result.
DESCRIPTIONS = {"pool": "connection", "upstream": "origin"}


@dataclass(slots=True)
class Session:
    """Client state that persists between requests: cached names and TLS sessions."""

    stub: Stub
    trust: Path | None = None
    #: The only TLS version to offer, ``1.2`` or ``1.3``; None offers both.
    tls: str | None = None
    #: Whether to resume TLS sessions.
    resume: bool = True
    #: Destination for the TLS secrets of every connection.
    keylog: KeyLog | None = None
    #: Timeout of one step without a response, in seconds.
    timeout: float = TIMEOUT
    context: ssl.SSLContext | None = None
    #: TLS sessions for resumption, keyed by host and port.
    tickets: dict[tuple[str, int], ssl.SSLSession] = field(default_factory=dict)

    def tls_context(self) -> ssl.SSLContext:
        """Return the session's only TLS context; a ticket is valid only in the context that received it."""
        if self.context is None:
            self.context = client_context(self.trust, self.tls)
            if self.keylog is not None:
                self.context.keylog_filename = self.keylog.path
        return self.context

    def ticket(self, host: str, port: int) -> ssl.SSLSession | None:
        """Return the TLS session to resume with *host*, or None."""
        return self.tickets.get((host, port)) if self.resume else None

    def reset(self) -> None:
        """Discard cached names, connections to the resolver, and TLS sessions."""
        self.stub.flush()
        self.stub.close()
        self.tickets.clear()


class _Clock:
    """Measures wall-clock time and this thread's CPU time of consecutive phases."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        trace.began_ns = time.time_ns()
        self._origin = self._wall = time.perf_counter()
        self._cpu = time.thread_time()

    def end(self, name: str, **fields: Any) -> Phase:
        """End the current phase, record it as *name* with *fields*, and start the next phase."""
        wall, cpu = time.perf_counter(), time.thread_time()
        phase = Phase(
            name, (self._wall - self._origin) * 1000, (wall - self._wall) * 1000, cpu_ms=(cpu - self._cpu) * 1000
        )
        for key, value in fields.items():
            setattr(phase, key, value)
        self._trace.phases.append(phase)
        self._wall, self._cpu = time.perf_counter(), time.thread_time()
        return phase


def measure(url: str, session: Session, server: tuple[str, int] | None = None) -> Trace:
    """Send one GET request, read the response and close the connection, each phase timed.

    Args:
        url: http or https URL.
        session: client state with cached names and TLS sessions; the request updates it.
        server: address to connect to instead of resolving the host; the certificate must still match the URL.

    Raises:
        WaterfallError: the request failed; the subclass depends on the phase.
    """
    secure, host, port, path = split(url)
    if secure:
        _context(session)  # load the trust store now: it takes milliseconds that are not part of the handshake
    trace = Trace(url)
    clock = _Clock(trace)
    address = _resolve(clock, session, host, server)
    sock = _connect(clock, session, address, port if server is None else server[1], host)
    with contextlib.closing(sock):
        _note_state(trace, lambda: tcp_info(sock).state)
        channel = _handshake(clock, session, sock, host, port) if secure else None
        _exchange(clock, trace, session, sock, channel, host, port, path)
        if channel is not None and channel.tls.object.session is not None:
            session.tickets[host, port] = channel.tls.object.session
        _note_state(trace, lambda: tcp_info(sock).state)
        local, remote = sock.getsockname(), sock.getpeername()
        closing = _close(clock, trace, sock, channel)
    _leave_closing(local, remote)
    state = _note_state(trace, lambda: _state_of(local, remote))
    closing.detail["state"] = state
    return trace


def split(url: str) -> tuple[bool, str, int, str]:
    """Split *url* into (whether TLS is used, host, port, path with query).

    Raises:
        BadURLError: *url* is not a valid http or https URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadURLError(f"expected a URL like https://www.example.com/, got {url!r}: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or not url.isascii() or any(c <= " " for c in url):
        raise BadURLError(f"expected a URL like https://www.example.com/, got {url!r}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    secure = parts.scheme == "https"
    return secure, parts.hostname, port or (443 if secure else 80), path


def _context(session: Session) -> ssl.SSLContext:
    try:
        return session.tls_context()
    except OSError as error:  # includes ssl.SSLError
        raise BadCertificateError(
            f"expected root certificates (PEM) in {session.trust}, got {error.strerror or error}"
        ) from None


def _note_state(trace: Trace, look: Callable[[], str]) -> str:
    """Return the connection's state in the kernel, and record the state for comparison with the segments."""
    before, state = time.time_ns(), look()
    trace.kernel_states.append((before, time.time_ns(), state))
    return state


def _resolve(clock: _Clock, session: Session, host: str, server: tuple[str, int] | None) -> str:
    if server is not None:
        clock.end("dns", detail={"address": server[0], "cached": True, "hops": [], "given": True})
        return server[0]
    try:
        answer = session.stub.resolve(host)
    except StubError as error:
        raise NameLookupError(str(error)) from None
    clock.end(
        "dns",
        round_trips=answer.round_trips,
        bytes_sent=answer.bytes_sent,
        bytes_received=answer.bytes_received,
        detail={
            "address": answer.rdata[0],
            "canonical_name": answer.canonical_name,
            "ttl_s": None if answer.ttl_s == float("inf") else round(answer.ttl_s, 1),
            "cached": answer.cached,
            "resolver": answer.server,
            "transport": answer.transport,
            "hops": [],
        },
    )
    return answer.rdata[0]


def _connect(clock: _Clock, session: Session, address: str, port: int, host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(session.timeout)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((address, port))
    except TimeoutError:
        sock.close()
        raise ConnectError(f"{host} ({address}:{port}): no response within {session.timeout:g} s") from None
    except OSError as error:
        sock.close()
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConnectError(f"{host} ({address}:{port}): {reason}") from None
    local = sock.getsockname()
    phase = clock.end("connect", round_trips=1)
    info = tcp_info(sock)
    phase.detail = {
        "address": f"{address}:{port}",
        "local": f"{local[0]}:{local[1]}",
        "kernel_rtt_ms": info.rtt_ms,
        "congestion_control": congestion_control(sock),
    }
    return sock


def _handshake(clock: _Clock, session: Session, sock: socket.socket, host: str, port: int) -> TlsSocket:
    channel = TlsSocket(sock, _context(session), host, session.ticket(host, port))
    try:
        channel.handshake()
    except ssl.SSLCertVerificationError as error:
        raise BadCertificateError(f"{host}: the certificate is not trusted: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise BadCertificateError(f"{host}: TLS failed: {error.reason or error}") from None
    except TimeoutError:
        raise BadCertificateError(f"{host}: no TLS response within {session.timeout:g} s") from None
    except OSError as error:
        raise BadCertificateError(f"{host}: the connection ended during the TLS handshake: {error}") from None
    counts = {"round_trips": channel.round_trips, "bytes_sent": channel.sent, "bytes_received": channel.received}
    phase = clock.end("tls", **counts)
    phase.detail = describe(channel.tls.object)
    return channel


def _exchange(
    clock: _Clock,
    trace: Trace,
    session: Session,
    sock: socket.socket,
    channel: TlsSocket | None,
    host: str,
    port: int,
    path: str,
) -> None:
    name = host if port in {80, 443} else f"{host}:{port}"
    request = get(name, path, f"User-Agent: {AGENT}", "Accept: */*")
    before = (channel.sent, channel.received) if channel is not None else (0, 0)
    response = ResponseReader()
    try:
        if channel is not None:
            channel.write(request)
        else:
            sock.sendall(request)
        clock.end("request", bytes_sent=(channel.sent - before[0]) if channel is not None else len(request))
        read = channel.read if channel is not None else lambda: sock.recv(65536)
        first = read()
        if not first:
            raise ResponseError(f"{host}: closed the connection without a response")
        received = (channel.received - before[1]) if channel is not None else len(first)
        opening = clock.end("first_byte", round_trips=1, bytes_received=received)
        rtt = tcp_info(sock).rtt_ms / 1000
        waits, after = _read_body(response, first, read, rtt)
    except TimeoutError:
        raise ResponseError(f"{host}: no response for {session.timeout:g} s") from None
    except HttpError as error:
        raise ResponseError(f"{host}: {error}") from None
    except OSError as error:
        raise ResponseError(f"{host}: the connection ended before the response was complete: {error}") from None
    got = (channel.received - before[1] - received) if channel is not None else after
    body = clock.end("body", round_trips=waits, bytes_received=got, detail={"body_bytes": response.body_bytes})
    info = tcp_info(sock)
    body.detail |= {"congestion_window": info.congestion_window, "retransmissions": info.retransmissions}
    trace.status = f"HTTP/{response.version} {response.status} {response.reason.decode('latin-1')}".strip()
    opening.detail = {"status": response.status, "server_timing": _server_timing(response.field(b"server-timing"))}


def _read_body(response: ResponseReader, first: bytes, read: Any, rtt: float) -> tuple[int, int]:
    """Read the rest of the response; return how many reads waited for a round trip, and the number of bytes read."""
    waits = total = 0
    complete = response.feed(first)
    while not complete:
        began = time.perf_counter()
        data = read()
        if time.perf_counter() - began > 0.5 * rtt > 0.0005:
            waits += 1
        if not data:
            response.end()
            break
        total += len(data)
        if total > MAX_BODY:
            raise ResponseError(f"more than {MAX_BODY} bytes")
        complete = response.feed(data)
    return waits, total


def _close(clock: _Clock, trace: Trace, sock: socket.socket, channel: TlsSocket | None) -> Phase:
    """Close the client's side of the connection and wait for the server's FIN.

    Unless the server closed its side first, the client's socket ends in TIME-WAIT.
    """
    server_first = tcp_info(sock).state == "CLOSE-WAIT"
    detail: dict[str, Any] = {"closed_by": "server" if server_first else "client"}
    try:
        if channel is not None:
            channel.close_notify()
        sock.shutdown(socket.SHUT_WR)
        _note_state(trace, lambda: tcp_info(sock).state)
        sock.settimeout(CLOSE_TIMEOUT)
        while sock.recv(65536):
            pass
    except OSError as error:
        detail["note"] = str(error)
    return clock.end("close", round_trips=0 if server_first or "note" in detail else 1, detail=detail)


def _leave_closing(local: tuple[str, int], remote: tuple[str, int]) -> None:
    """Wait until the connection has left the state CLOSING.

    A server that closes on close_notify sends its FIN before it receives the client's FIN.  The client is then in
    CLOSING until the acknowledgement of its own FIN arrives, up to one round trip later (RFC 9293 section 3.6).
    """
    deadline = time.monotonic() + CLOSE_TIMEOUT
    while _state_of(local, remote) == "CLOSING" and time.monotonic() < deadline:
        time.sleep(CLOSING_POLL)  # polls: no event signals a state change of a closed socket


def _state_of(local: tuple[str, int], remote: tuple[str, int]) -> str:
    """Return the TCP state of the connection, even if its socket no longer belongs to a process."""
    try:
        found = sock_diag.sockets(local_port=local[1], remote_port=remote[1])
        return next((each.state for each in found if (each.local, each.remote) == (local, remote)), "CLOSED")
    except sock_diag.SockDiagError:
        return "CLOSED"


def _server_timing(text: str) -> dict[str, Any]:
    """Parse the edge's Server-Timing field: durations in milliseconds by name, kind of connection, and origin."""
    timing: dict[str, Any] = {}
    for entry in text.split(","):
        name, *parameters = [part.strip() for part in entry.split(";")]
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key == "dur":
                with contextlib.suppress(ValueError):
                    timing[name] = float(value)
            elif key == "desc" and name in DESCRIPTIONS:
                timing[DESCRIPTIONS[name]] = value.strip('"')
    return timing
