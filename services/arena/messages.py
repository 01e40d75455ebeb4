"""Messages between a player and the arena, and the cookies with which the arena verifies a player's address.

Over UDP, each datagram is one message.  A player first asks for a cookie and then joins with it, as in DTLS (RFC 6347
section 4.2.1), because a server that streams to an unverified address would amplify attacks.  Over TCP, the player
sends one `Join`, and each snapshot is preceded by its length in two bytes.

Nothing here opens a socket or reads a clock.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"FBA1"
#: Size of a cookie request in bytes.  The response is shorter, so the arena cannot be used to amplify an attack.
HELLO = 64
#: Size of a cookie in bytes.
COOKIE = 16
#: Minimum time in seconds for which a cookie is valid; the maximum is twice as long.
COOKIE_LIFE = 30.0
#: Minimum and maximum values in a `Join`: snapshots per second, bytes per snapshot, and duration in seconds.
RATES, SIZES, DURATIONS = (1.0, 120.0), (20, 1200), (0.1, 120.0)
_KIND = struct.Struct("!4sB")
_JOIN = struct.Struct("!4sB16sBddH")
_SNAPSHOT = struct.Struct("!4sBIQ")
#: Format of the length prefix of each message over TCP.
LENGTH = struct.Struct("!H")


class ArenaError(Exception):
    """A message is malformed, has a value out of bounds, or lacks a valid cookie; the text says what was expected."""


class Kind(IntEnum):
    """Kind of a message, encoded in its fifth byte."""

    HELLO = 1
    COOKIE = 2
    JOIN = 3
    SNAPSHOT = 4
    LEAVE = 5


class Mode(IntEnum):
    """Which snapshots the arena sends over TCP."""

    #: Send every snapshot.
    EVERY = 0
    #: Send only the newest: skip a snapshot while the socket's send buffer still contains unsent data.
    NEWEST = 1


@dataclass(frozen=True, slots=True)
class Join:
    """A player's request for snapshots."""

    #: Snapshots per second.
    rate: float
    #: Size of a snapshot in bytes.
    size: int
    #: Duration of the session in seconds.
    duration: float
    mode: Mode = Mode.EVERY
    cookie: bytes = bytes(COOKIE)

    def encode(self) -> bytes:
        """Return the message as bytes."""
        return _JOIN.pack(MAGIC, Kind.JOIN, self.cookie, self.mode, self.rate, self.duration, self.size)

    @classmethod
    def decode(cls, data: bytes) -> "Join":
        """Parse a message.

        Raises:
            ArenaError: *data* is not a `Join`, or a value is out of bounds.
        """
        if len(data) != _JOIN.size or kind_of(data) is not Kind.JOIN:
            raise ArenaError(f"expected a join of {_JOIN.size} bytes, got {len(data)} bytes")
        _, _, cookie, mode, rate, duration, size = _JOIN.unpack(data)
        for name, value, (low, high) in (
            ("rate", rate, RATES),
            ("size", size, SIZES),
            ("duration", duration, DURATIONS),
        ):
            if not low <= value <= high:  # also rejects NaN, because every comparison with NaN is false
                raise ArenaError(f"expected a {name} from {low:g} to {high:g}, got {value:g}")
        if mode not in set(Mode):
            raise ArenaError(f"expected a mode of {', '.join(map(str, Mode))}, got {mode}")
        return cls(rate, size, duration, Mode(mode), cookie)


JOIN_SIZE = _JOIN.size


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the game at one moment."""

    #: Sequence number, counted from 0 in each session.
    number: int
    #: Time of sending on the machine's monotonic clock, in nanoseconds.
    sent_ns: int

    def encode(self, size: int) -> bytes:
        """Return the message, padded to *size* bytes."""
        return _SNAPSHOT.pack(MAGIC, Kind.SNAPSHOT, self.number, self.sent_ns).ljust(size, b"\0")

    @classmethod
    def decode(cls, data: bytes) -> "Snapshot":
        """Parse a message; raise `ArenaError` if it is not a snapshot."""
        if len(data) < _SNAPSHOT.size or kind_of(data) is not Kind.SNAPSHOT:
            raise ArenaError(f"expected a snapshot of at least {_SNAPSHOT.size} bytes, got {len(data)} bytes")
        _, _, number, sent_ns = _SNAPSHOT.unpack_from(data)
        return cls(number, sent_ns)


def kind_of(data: bytes) -> Kind:
    """Return the kind of a message; raise `ArenaError` if *data* is not a message of the arena protocol."""
    if len(data) >= _KIND.size and data.startswith(MAGIC) and data[4] in set(Kind):
        return Kind(data[4])
    raise ArenaError(f"expected a message that begins with {MAGIC.decode()}, got {data[:8].hex(' ') or 'nothing'}")


def hello() -> bytes:
    """Return a player's request for a cookie."""
    return _KIND.pack(MAGIC, Kind.HELLO).ljust(HELLO, b"\0")


def leave() -> bytes:
    """Return a player's request to end the session."""
    return _KIND.pack(MAGIC, Kind.LEAVE)


def cookie_message(cookie: bytes) -> bytes:
    """Return the arena's answer to `hello`, which contains *cookie*."""
    return _KIND.pack(MAGIC, Kind.COOKIE) + cookie


def cookie_of(data: bytes) -> bytes:
    """Return the cookie in *data*, the arena's answer to `hello`; raise `ArenaError` if *data* is another message."""
    if len(data) != _KIND.size + COOKIE or kind_of(data) is not Kind.COOKIE:
        raise ArenaError(f"expected a cookie of {COOKIE} bytes, got {len(data)} bytes")
    return data[_KIND.size :]


class Cookies:
    """Makes and checks cookies without keeping state per player."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, address: tuple[str, int], now: float) -> bytes:
        """Return the cookie for a player at *address*; *now* is in seconds."""
        return self._cookie(address, int(now / COOKIE_LIFE))

    def check(self, address: tuple[str, int], cookie: bytes, now: float) -> bool:
        """Return whether *cookie* was made for *address* in the current or previous period of `COOKIE_LIFE` seconds."""
        period = int(now / COOKIE_LIFE)
        return any(hmac.compare_digest(cookie, self._cookie(address, p)) for p in (period, period - 1))

    def _cookie(self, address: tuple[str, int], period: int) -> bytes:
        text = f"{address[0]} {address[1]} {period}".encode()
        return hmac.digest(self._secret, text, hashlib.sha256)[:COOKIE]
