"""Sockets of the arena: datagrams and connections on the same port number, and a timer per session."""

import array
import asyncio
import fcntl
import secrets
import socket
import time
from collections.abc import Callable
from typing import cast

from arena import messages
from arena.messages import ArenaError, Join, Kind, Mode, Snapshot
from telemetry import log
from telemetry.metrics import Metrics

#: Maximum number of concurrent sessions, over UDP and TCP together.
MAX_SESSIONS = 128
#: Maximum number of bytes queued in this process for a slow player; beyond it, the connection is aborted.
MAX_BACKLOG = 1 << 20
#: Time in seconds within which a player must send a `Join` on a new TCP connection.
JOIN_TIMEOUT = 5.0
#: ioctl that returns the bytes in a socket's send buffer that have not been sent yet (linux/sockios.h, SIOCOUTQNSD).
_SIOCOUTQNSD = 0x894B

logger = log.get("arena")


class Session:
    """Sends snapshots to one player until the requested duration has passed.

    Args:
        join: the player's request.
        send: sends one snapshot.
        clogged: returns whether earlier snapshots are still unsent; if so, the next snapshot is skipped.
        ended: called once, when the session ends.
    """

    def __init__(
        self, join: Join, send: Callable[[bytes], None], clogged: Callable[[], bool], ended: Callable[[], None]
    ) -> None:
        self._join, self._send, self._clogged, self._ended = join, send, clogged, ended
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._number = 0
        self.skipped = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tick()

    def end(self) -> None:
        """End the session; do nothing if it has already ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._ended()

    def _tick(self) -> None:
        if self._clogged():
            self.skipped += 1
        else:
            self._send(Snapshot(self._number, time.monotonic_ns()).encode(self._join.size))
        self._number += 1
        due = self._number / self._join.rate
        self._timer = self._loop.call_at(self._began + due, self._tick if due < self._join.duration else self.end)


class Arena:
    """The service: manages all sessions, their limits and the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self.cookies = messages.Cookies(secrets.token_bytes(32))
        self._sessions: dict[object, Session] = {}
        self._open = metrics.gauge("firstbyte_arena_sessions", "Players that receive snapshots")
        self._sent = metrics.counter("firstbyte_arena_snapshots_total", "Snapshots sent", "protocol")
        self._skipped = metrics.counter("firstbyte_arena_skipped_total", "Snapshots skipped for a slow connection")
        self._refused = metrics.counter("firstbyte_arena_refused_total", "Messages and joins refused", "reason")

    def refuse(self, reason: str) -> None:
        """Count a refused message."""
        self._refused.inc(reason=reason)

    def join(
        self, key: object, protocol: str, join: Join, send: Callable[[bytes], None], clogged: Callable[[], bool]
    ) -> bool:
        """Start a session for the player *key*, replacing an earlier one; return False at `MAX_SESSIONS` sessions."""
        self.leave(key)
        if len(self._sessions) >= MAX_SESSIONS:
            self.refuse("full")
            return False

        def counted(data: bytes) -> None:
            self._sent.inc(protocol=protocol)
            send(data)

        def ended() -> None:
            self._skipped.inc(self._sessions.pop(key).skipped)
            self._open.set(len(self._sessions))
            logger.debug("left", player=str(key), protocol=protocol)

        self._sessions[key] = Session(join, counted, clogged, ended)
        self._open.set(len(self._sessions))
        logger.debug("joined", player=str(key), protocol=protocol, rate=join.rate)
        return True

    def leave(self, key: object) -> None:
        """End the session of the player *key*, if there is one."""
        if (session := self._sessions.get(key)) is not None:
            session.end()

    def close(self) -> None:
        """End all sessions."""
        for session in tuple(self._sessions.values()):
            session.end()


class Datagrams(asyncio.DatagramProtocol):
    """Serves players over UDP."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, on which answers are sent."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """Answer one message, unless it is malformed or lacks a valid cookie."""
        now = time.monotonic()
        try:
            kind = messages.kind_of(data)
            if kind is Kind.HELLO and len(data) >= messages.HELLO:
                self._transport.sendto(messages.cookie_message(self._arena.cookies.make(address, now)), address)
            elif kind is Kind.LEAVE:
                self._arena.leave(address)
            else:
                join = Join.decode(data)
                if not self._arena.cookies.check(address, join.cookie, now):
                    raise ArenaError("expected a valid cookie")
                self._arena.join(
                    address, "udp", join, lambda snapshot: self._transport.sendto(snapshot, address), lambda: False
                )
        except ArenaError:
            self._arena.refuse("message")

    def error_received(self, error: Exception) -> None:
        """Ignore ICMP errors; an unreachable player's session continues until the requested duration has passed."""


class Streams(asyncio.Protocol):
    """Serves one player over TCP."""

    def __init__(self, arena: Arena) -> None:
        self._arena, self._received = arena, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Disable Nagle's algorithm, and wait for the `Join`."""
        self._transport = cast("asyncio.Transport", transport)
        self._socket: socket.socket = transport.get_extra_info("socket")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timer = asyncio.get_running_loop().call_later(JOIN_TIMEOUT, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Start the session when the first `Join` is complete; ignore all data after it."""
        if len(self._received) >= messages.JOIN_SIZE:
            return
        self._received += data
        if len(self._received) < messages.JOIN_SIZE:
            return
        self._timer.cancel()
        try:
            join = Join.decode(self._received[: messages.JOIN_SIZE])
        except ArenaError:
            self._arena.refuse("message")
            self._transport.abort()
            return
        clogged = self._unsent if join.mode is Mode.NEWEST else lambda: False
        if not self._arena.join(self, "tcp", join, self._send, clogged):
            self._transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        """End the session."""
        self._timer.cancel()
        self._arena.leave(self)

    def _send(self, snapshot: bytes) -> None:
        if self._transport.get_write_buffer_size() > MAX_BACKLOG:
            self._transport.abort()  # the player reads too slowly
        self._transport.write(messages.LENGTH.pack(len(snapshot)) + snapshot)

    def _unsent(self) -> bool:
        """Return whether the transport or the kernel holds bytes that have not been sent for the first time."""
        if self._transport.get_write_buffer_size() or self._transport.is_closing():
            return True
        waiting = array.array("i", [0])
        fcntl.ioctl(self._socket.fileno(), _SIOCOUTQNSD, waiting)
        return waiting[0] > 0
