"""Ends TCP connections in chosen ways and captures their segments at `wan` (scenario `time-wait-why`)."""

import base64
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from experiments.lab import Admin
from linuxnet import sock_diag
from wireformat import pcap
from wireformat.http1 import get
from wireformat.http1_reader import ResponseReader
from wireformat.ip import HeaderError, decode

PORT = 80
#: Source ports of the connections.  They are below the range from which the kernel assigns ports, so that a port can be
#: used twice.
FIRST_PORT = 20_000


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment as captured when it entered the router."""

    #: Seconds since the epoch.
    at: float
    from_client: bool
    flags: frozenset[str]
    #: Payload bytes.
    length: int


@dataclass(frozen=True, slots=True)
class Ending:
    """The captured segments of one connection, or of two successive connections from the same port."""

    port: int
    segments: tuple[Segment, ...]
    #: Time of the replay in seconds since the epoch; 0 if nothing was replayed.
    replayed: float = 0.0
    #: State of the client's socket after the close; "" if the kernel no longer has the socket.
    state: str = ""
    #: Number of requests that the client sent on the last connection.
    asked: int = 0
    #: Number of responses that the client received on the last connection.
    answered: int = 0

    def fins(self) -> list[Segment]:
        """Return the server's segments with FIN, including retransmissions."""
        return [each for each in self.segments if not each.from_client and "FIN" in each.flags]

    def acknowledged(self) -> bool:
        """Return whether the client answered the server's last FIN with acknowledgements only, without a reset."""
        fins = self.fins()
        later = [each for each in self.segments if each.from_client and fins and each.at > fins[-1].at]
        return bool(later) and all(each.flags == {"ACK"} for each in later)

    def resets(self) -> int:
        """Return the number of resets that the client sent in addition to its first reset, which was lost."""
        return max(0, sum(each.from_client and "RST" in each.flags for each in self.segments) - 1)

    def refusals(self) -> int:
        """Return the number of acknowledgements without data that the server sent after the replay."""
        later = [each for each in self.segments if not each.from_client and each.at >= self.replayed - 0.05]
        return sum(each.flags == {"ACK"} and not each.length for each in later) if self.replayed else 0


class Client:
    """Blocking client that opens and ends connections, and asks `wan` to drop or replay some of their segments."""

    def __init__(self, admin: Admin, name: str, address: str, rtt: float) -> None:
        self._admin, self._name, self._to, self._rtt = admin, name, address, rtt
        self._port = FIRST_PORT

    @contextmanager
    def capture(self, seconds: float) -> Iterator[None]:
        """Capture the traffic with the server at `wan` during a ``with`` block, for at most *seconds*."""
        filtered = {"host": self._to, "port": PORT, "protocol": "tcp"}
        self._admin.call("wan", "POST", "/admin/pcap", {"seconds": seconds, "filter": filtered})
        try:
            yield
        finally:
            self._admin.call("wan", "DELETE", "/admin/pcap")

    def segments(self) -> dict[int, list[Segment]]:
        """Return the captured segments, keyed by the client's port."""
        data = base64.b64decode(self._admin.call("wan", "GET", "/admin/pcap")["pcap"])
        found: dict[int, list[Segment]] = {}
        for at, packet in pcap.records(data):
            try:
                parsed = decode(packet)
            except HeaderError:
                continue
            if parsed.tcp is None:
                continue
            from_client = parsed.destination == (self._to, PORT)
            port = (parsed.source if from_client else parsed.destination)[1]
            flags = parsed.tcp.flags & {"FIN", "SYN", "RST", "ACK"}
            found.setdefault(port, []).append(Segment(at / 1e9, from_client, flags, len(parsed.payload)))
        return found

    def lose_last_ack(self, wait: float) -> tuple[int, str]:
        """Close a connection whose last acknowledgement is lost, and wait; return its port and the socket's state."""
        sock = self._open()
        self._rule(sock, flags="ack", acknowledges_fin=True)
        self._ask(sock)
        sock.close()
        time.sleep(2 * self._rtt)  # the FINs of both sides have arrived
        state = next((each.state for each in sock_diag.sockets(local_port=self._port, remote_port=PORT)), "")
        time.sleep(wait)  # the server sends its FIN again
        return self._port, state

    def lose_reset(self, wait: float) -> int:
        """Abort a connection while the server prepares its response, and lose the reset; return the port."""
        sock = self._open()
        self._rule(sock, flags="rst+ack")
        sock.sendall(get(self._name, f"/delay/{round(2000 * self._rtt)}", "Connection: close"))
        time.sleep(1.5 * self._rtt)  # the request has arrived, and the response is not yet sent
        _abort(sock)
        time.sleep(wait)  # the server sends its response and its FIN
        return self._port

    def replay_after_close(self, after: float) -> tuple[int, float]:
        """Let the server close first, and replay the request later; return the port and the time of the replay."""
        sock = self._open()
        self._rule(sock, flags="ack", replay_ms=round(1000 * after))
        sent = time.time()
        self._ask(sock, "Connection: close")
        sock.close()
        time.sleep(after + 2 * self._rtt)  # the replayed segment has been answered
        return self._port, sent + after

    def replay_into_new(self, after: float) -> tuple[int, float, int]:
        """Replay a request of an aborted connection into a new connection from the same port.

        Returns:
            The port, the time of the replay, and the number of responses on the new connection, which sent one request.
        """
        sock = self._open()
        self._rule(sock, flags="ack", replay_ms=round(1000 * after))
        sent = time.time()
        self._ask(sock)
        _abort(sock)
        with self._open(self._port) as sock:
            time.sleep(max(0.0, sent + after + 2 * self._rtt - time.time()))  # the old segment has arrived
            answered = 1 if self._ask(sock) else 0
            sock.settimeout(2 * self._rtt)
            with suppress(TimeoutError):  # nothing else arrives: the old request got no response
                answered += bool(sock.recv(1 << 16))
            _abort(sock)
        return self._port, sent + after, answered

    def _open(self, port: int = 0) -> socket.socket:
        self._port = port or self._port + 1
        sock = socket.socket()
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", self._port))
            sock.settimeout(10)
            sock.connect((self._to, PORT))
        except BaseException:
            sock.close()
            raise
        return sock

    def _rule(self, sock: socket.socket, **pattern: Any) -> None:
        """Replace all rules at `wan` with one for the client's next segment that matches *pattern*."""
        self._admin.call("wan", "DELETE", "/admin/drops")
        source, port = sock.getsockname()
        self._admin.call("wan", "POST", "/admin/drops", {"source": source, "port": port, **pattern})

    def _ask(self, sock: socket.socket, *fields: str) -> bool:
        """Send a request and read its response; return whether the response is complete."""
        sock.sendall(get(self._name, "/bytes/100", *fields))
        response = ResponseReader()
        while data := sock.recv(1 << 16):
            if response.feed(data):
                return True
        return False


def _abort(sock: socket.socket) -> None:
    """Close the connection with a reset, so that the kernel keeps no state of the socket."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def intervals(endings: Sequence[Ending]) -> list[float]:
    """Return the seconds from the server's first FIN to its retransmission, for each connection with both."""
    pairs = [each.fins()[:2] for each in endings]
    return [fins[1].at - fins[0].at for fins in pairs if len(fins) == 2]
