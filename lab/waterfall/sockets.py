"""What the kernel says of one TCP socket: round-trip time, state, TIME-WAIT (tcp(7), proc(5))."""

import socket
import struct
from dataclasses import dataclass
from pathlib import Path

STATES = {
    1: "ESTABLISHED",
    2: "SYN-SENT",
    3: "SYN-RECEIVED",
    4: "FIN-WAIT-1",
    5: "FIN-WAIT-2",
    6: "TIME-WAIT",
    7: "CLOSED",
    8: "CLOSE-WAIT",
    9: "LAST-ACK",
    10: "LISTEN",
    11: "CLOSING",
}
#: Offsets in struct tcp_info: state, rtt in microseconds, congestion window in segments, retransmissions in all.
_RTT, _CWND, _RETRANS = 68, 80, 100


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """A part of the kernel's struct tcp_info."""

    state: str
    rtt_ms: float
    congestion_window: int
    retransmissions: int


def tcp_info(sock: socket.socket) -> TcpInfo:
    """Return what the kernel knows of a connected socket."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    (rtt,) = struct.unpack_from("I", raw, _RTT)
    (window,) = struct.unpack_from("I", raw, _CWND)
    (retransmissions,) = struct.unpack_from("I", raw, _RETRANS)
    return TcpInfo(STATES.get(raw[0], str(raw[0])), rtt / 1000, window, retransmissions)


def congestion_control(sock: socket.socket) -> str:
    """Return the name of the socket's congestion control."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def state_of(local: tuple[str, int], remote: tuple[str, int], table: Path = Path("/proc/net/tcp")) -> str | None:
    """Return the state of the connection between *local* and *remote*, also when no process has it any more."""
    wanted = f"{_encode(*local)} {_encode(*remote)}"
    try:
        lines = table.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) > 3 and f"{words[1]} {words[2]}" == wanted:
            return STATES.get(int(words[3], 16))
    return None


def _encode(host: str, port: int) -> str:
    (number,) = struct.unpack("=I", socket.inet_aton(host))
    return f"{number:08X}:{port:04X}"
