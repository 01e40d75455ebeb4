"""Kernel state of one TCP connection: struct tcp_info (include/uapi/linux/tcp.h) and the names of TCP states."""

import socket
import struct
from dataclasses import dataclass

#: TCP state names; the index is the kernel's number (enum in include/net/tcp_states.h).
STATES = (
    "", "ESTABLISHED", "SYN-SENT", "SYN-RECEIVED", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSED", "CLOSE-WAIT",
    "LAST-ACK", "LISTEN", "CLOSING", "NEW-SYN-RECEIVED",
)  # fmt: skip
#: Byte offset and type of each field; older kernels return a shorter struct.
_FIELDS = {
    "rtt_us": (68, "=I"), "rttvar_us": (72, "=I"), "ssthresh": (76, "=I"), "cwnd": (80, "=I"), "retrans": (100, "=I"),
    "bytes_acked": (120, "=Q"), "bytes_received": (128, "=Q"), "busy_us": (168, "=Q"), "rwnd_limited_us": (176, "=Q"),
    "bytes_sent": (200, "=Q"), "bytes_retrans": (208, "=Q"), "snd_wnd": (228, "=I"),
}  # fmt: skip
_SIZE = 256


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """Selected fields of struct tcp_info."""

    state: str
    rtt_ms: float
    #: Congestion window in segments.
    congestion_window: int
    #: Number of segments retransmitted since the connection was opened.
    retransmissions: int


def parse(raw: bytes | memoryview) -> dict[str, int]:
    """Return the fields that *raw* is long enough to contain; times are in microseconds, windows in segments."""
    return {
        name: struct.unpack_from(code, raw, offset)[0]
        for name, (offset, code) in _FIELDS.items()
        if len(raw) >= offset + struct.calcsize(code)
    }


def tcp_info(sock: socket.socket) -> TcpInfo:
    """Return selected TCP_INFO fields of a connected socket."""
    raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    fields = parse(raw)
    return TcpInfo(state_name(raw[0]), fields["rtt_us"] / 1000, fields["cwnd"], fields["retrans"])


def state_name(number: int) -> str:
    """Return the name of a TCP state, or its number as text if the number is unknown."""
    return STATES[number] if 0 < number < len(STATES) else str(number)


def congestion_control(sock: socket.socket) -> str:
    """Return the name of the socket's congestion control algorithm."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
