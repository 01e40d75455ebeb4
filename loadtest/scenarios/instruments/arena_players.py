"""Players of the arena: record when each snapshot arrives, and how old the displayed game state is."""

import os
import select
import socket
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from arena.messages import COOKIE, LENGTH, Join, Kind, Snapshot, cookie_of, hello, kind_of, leave
from scenarios.instruments.connection import Address

#: Seconds after which an unanswered message is sent again, and maximum number of attempts.
RETRY, ATTEMPTS = 0.5, 10
#: How long to wait for late snapshots after the longest session ends, in seconds.
LINGER = 1.0


class PlayerError(OSError):
    """The arena does not answer, or ended the session early."""


@dataclass(slots=True)
class Player:
    """One player's session and the snapshots that arrived in it; all times are in seconds on this machine's clock."""

    #: How snapshots are sent: "udp", "tcp", or "newest" (only the newest snapshot over TCP).
    protocol: str
    #: The pair (arrival time, sending time) of each snapshot that was newer than all snapshots before it.
    shown: list[tuple[float, float]] = field(default_factory=list)
    #: Numbers of the snapshots in `shown`.
    numbers: list[int] = field(default_factory=list)
    #: Number of snapshots that arrived.
    arrived: int = 0
    #: Highest number of a snapshot that arrived; -1 if none did.
    newest: int = -1

    def take(self, data: bytes, now: float) -> None:
        """Record a snapshot that arrived at *now*."""
        snapshot = Snapshot.decode(data)
        self.arrived += 1
        if snapshot.number > self.newest:
            self.newest = snapshot.number
            self.numbers.append(snapshot.number)
            self.shown.append((now, snapshot.sent_ns / 1e9))

    @property
    def missing(self) -> int:
        """Number of snapshots that never arrived, although a later one did."""
        return self.newest + 1 - self.arrived

    @property
    def mean_age(self) -> float:
        """Mean age in seconds of the newest snapshot, over the time from the first to the last arrival."""
        area = sum((b - a) * ((a + b) / 2 - sent) for (a, sent), (b, _) in pairwise(self.shown))
        span = self.shown[-1][0] - self.shown[0][0] if len(self.shown) > 1 else 0.0
        return area / span if span else float("nan")

    @property
    def longest_freeze(self) -> float:
        """Longest time between two new snapshots, in seconds."""
        return max((b - a for (a, _), (b, _) in pairwise(self.shown)), default=float("nan"))

    def peaks(self, threshold: float) -> list[float]:
        """Return the age of each snapshot older than *threshold* seconds that directly followed a younger one."""
        ages = [at - sent for at, sent in self.shown]
        return [age for before, age in pairwise(ages) if before <= threshold < age]

    def ages(self, ticks_per_s: float = 144.0) -> list[float]:
        """Return the age of the displayed snapshot at each refresh of the screen, in seconds."""
        if not self.shown:
            return []
        arrivals = [at for at, _ in self.shown]
        ticks = int((arrivals[-1] - arrivals[0]) * ticks_per_s)
        moments = [arrivals[0] + i / ticks_per_s for i in range(ticks)]
        return [at - self.shown[bisect_right(arrivals, at) - 1][1] for at in moments]


def play(to: Address, joins: Sequence[tuple[str, Join]]) -> list[Player]:
    """Play one session per pair (protocol, join message), all at the same time; block until all have ended.

    Raises:
        PlayerError: the arena does not answer, or ended a session early.
    """
    players = [Player(protocol) for protocol, _ in joins]
    sockets: dict[int, tuple[socket.socket, Player]] = {}
    try:
        for player in players:
            kind = socket.SOCK_DGRAM if player.protocol == "udp" else socket.SOCK_STREAM
            sock = socket.socket(socket.AF_INET, kind)
            sockets[sock.fileno()] = (sock, player)
            sock.setblocking(False)
            sock.connect_ex((to.address, to.port))
        cookies = _introduce(sockets)
        for (number, (sock, _)), (_, join) in zip(sockets.items(), joins, strict=True):
            sock.send(replace(join, cookie=cookies[number]).encode())
        _receive(sockets, time.monotonic() + max(join.duration for _, join in joins) + LINGER)
        for sock, player in sockets.values():
            if player.protocol == "udp":
                sock.send(leave())
    except OSError as error:
        raise PlayerError(f"{to.host}:{to.port}: {error}") from None
    finally:
        for sock, _ in sockets.values():
            sock.close()
    return players


def _introduce(sockets: dict[int, tuple[socket.socket, Player]]) -> dict[int, bytes]:
    """Wait until all TCP sockets are connected and all UDP sockets have a cookie; return cookies by file descriptor.

    No session begins before all sockets are ready, so that every snapshot is read as soon as it arrives.
    """
    cookies: dict[int, bytes] = {}
    poll = select.poll()
    for number, (_, player) in sockets.items():
        poll.register(number, select.POLLIN if player.protocol == "udp" else select.POLLOUT)
    for _ in range(ATTEMPTS):
        for number, (sock, player) in sockets.items():
            if player.protocol == "udp" and number not in cookies:
                sock.send(hello())
        until = time.monotonic() + RETRY
        while (left := until - time.monotonic()) > 0 and len(cookies) < len(sockets):
            for number, _ in poll.poll(1000 * left):
                sock, player = sockets[number]
                if player.protocol == "udp":
                    cookies[number] = cookie_of(sock.recv(2048))
                    poll.modify(number, 0)  # ignore this socket: a second answer to a repeated request may follow
                else:
                    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        raise OSError(error, os.strerror(error))
                    cookies[number] = bytes(COOKIE)
                    poll.unregister(number)
        if len(cookies) == len(sockets):
            return cookies
    raise PlayerError("no answer")


def _receive(sockets: dict[int, tuple[socket.socket, Player]], until: float) -> None:
    """Record all snapshots that arrive before the given time."""
    buffers = {number: bytearray() for number in sockets}
    poll = select.poll()
    for number in sockets:
        poll.register(number, select.POLLIN)
    while (left := until - time.monotonic()) > 0:
        for number, _ in poll.poll(1000 * left):
            sock, player = sockets[number]
            now = time.monotonic()
            data = sock.recv(1 << 16)
            if player.protocol == "udp":
                if kind_of(data) is Kind.SNAPSHOT:
                    player.take(data, now)
                continue
            if not data:
                raise PlayerError("the arena closed the connection")
            buffer = buffers[number]
            buffer += data
            while len(buffer) >= LENGTH.size and len(buffer) >= LENGTH.size + LENGTH.unpack_from(buffer)[0]:
                end = LENGTH.size + LENGTH.unpack_from(buffer)[0]
                player.take(bytes(buffer[LENGTH.size : end]), now)
                del buffer[:end]
