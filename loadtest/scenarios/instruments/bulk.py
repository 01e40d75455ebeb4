"""Bulk uploads over TCP with a given congestion control, observed by reading TCP_INFO of the sending sockets."""

import contextlib
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from linuxnet.tcp_info import congestion_control, parse

#: Path and body size of an upload request. The server reads the body at full speed, for at most two minutes.
PATH, BODY = "/slow-read/10485760", 1 << 30
PORT = 80
#: Number of times per second that TCP_INFO of each socket is read.
HZ = 50
#: The data passed to each call of send().
BLOCK = bytes(1 << 16)
_TCP_INFO_SIZE = 256
#: Port of the discard service (RFC 863), closed on every host of the lab, and size in bytes of a flood's datagrams.
DISCARD, DATAGRAM = 9, 1200


@dataclass(frozen=True, slots=True)
class Reading:
    """Selected TCP_INFO fields of a sender's socket."""

    #: Seconds on the monotonic clock.
    at: float
    #: Congestion window in segments.
    window: int
    #: Slow start threshold in segments.
    threshold: int
    #: Total number of bytes acknowledged.
    acked: int
    #: Total number of bytes sent.
    sent: int
    #: Total number of bytes retransmitted.
    again: int
    #: Total time for which the receive window limited the sender, in seconds.
    limited: float
    rtt_ms: float


@dataclass(slots=True)
class Flow:
    """One upload: the readings of its socket, and the name of its congestion control algorithm."""

    control: str = ""
    readings: list[Reading] = field(default_factory=list)
    error: str = ""

    def rate(self, begin: float, end: float) -> float:
        """Return the acknowledged bits per second between *begin* and *end* on the monotonic clock; 0 if unknown."""
        inside = [each for each in self.readings if begin <= each.at <= end]
        if len(inside) < 2:
            return 0.0
        return 8 * (inside[-1].acked - inside[0].acked) / (inside[-1].at - inside[0].at)

    def limited(self) -> float:
        """Return the share of the upload's duration for which the receive window limited the sender."""
        if len(self.readings) < 2:
            return 0.0
        first, last = self.readings[0], self.readings[-1]
        return (last.limited - first.limited) / (last.at - first.at)

    def decreases(self, begin: float) -> list[float]:
        """Return the ratio of the window after a loss to the window before it, for each loss after *begin*.

        The window after a loss is the slow start threshold, which the kernel sets at each loss.  A loss during the
        recovery from an earlier loss is omitted, because the window is not at its peak then.
        """
        ratios, peak = [], 0
        for before, after in zip(self.readings, self.readings[1:], strict=False):
            peak = max(peak, before.window)
            if after.threshold != before.threshold:
                if after.at >= begin and peak >= 10:
                    ratios.append((after.threshold + 0.5) / peak)  # add 0.5 because the kernel rounds down
                peak = 0
        return ratios


def upload(addresses: Sequence[tuple[str, str]], controls: Sequence[str], seconds: float) -> list[Flow]:
    """Upload to each of *addresses* at the same time for *seconds*; return the flows.

    Args:
        addresses: pairs (IPv4 address, host name) of the servers.
        controls: congestion control algorithm of each upload; "" for the default of the route.
        seconds: duration of the uploads.

    Raises:
        OSError: a connection failed, or the kernel refused the congestion control algorithm.
    """
    flows: list[Flow] = []
    with contextlib.ExitStack() as stack:
        sockets = []
        for (address, name), control in zip(addresses, controls, strict=True):
            sock = stack.enter_context(socket.create_connection((address, PORT), timeout=10))
            sock.settimeout(None)
            if control:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
            sock.sendall(f"POST {PATH} HTTP/1.1\r\nHost: {name}\r\nContent-Length: {BODY}\r\n\r\n".encode())
            sockets.append(sock)
            flows.append(Flow(congestion_control(sock)))
        stopped = threading.Event()
        senders = [
            threading.Thread(target=_send, args=(sock, flow, stopped))
            for sock, flow in zip(sockets, flows, strict=True)
        ]
        for sender in senders:
            sender.start()
        try:
            _observe(sockets, flows, seconds)
        finally:
            stopped.set()
            for sock in sockets:
                _abort(sock)
            for sender in senders:
                sender.join()
    return flows


def _send(sock: socket.socket, flow: Flow, stopped: threading.Event) -> None:
    try:
        while not stopped.is_set():
            sock.sendall(BLOCK)
    except OSError as error:
        if not stopped.is_set():
            flow.error = error.strerror or type(error).__name__


def _observe(sockets: Sequence[socket.socket], flows: Sequence[Flow], seconds: float) -> None:
    began = time.monotonic()
    count = 0
    while (now := time.monotonic()) < began + seconds:
        for sock, flow in zip(sockets, flows, strict=True):
            flow.readings.append(_reading(sock, now))
        count += 1
        time.sleep(max(0.0, began + count / HZ - time.monotonic()))  # wait until the next reading is due


def _reading(sock: socket.socket, now: float) -> Reading:
    info = parse(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE))
    return Reading(
        now,
        info["cwnd"],
        info["ssthresh"],
        info["bytes_acked"],
        info.get("bytes_sent", 0),
        info.get("bytes_retrans", 0),
        info.get("rwnd_limited_us", 0) / 1e6,
        info["rtt_us"] / 1000,
    )


def _abort(sock: socket.socket) -> None:
    """Reset the connection and discard unsent data; a send() that blocks in another thread returns."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.shutdown(socket.SHUT_RDWR)


def flood(address: str, bits_per_second: float, seconds: float) -> int:
    """Send UDP datagrams to the closed port `DISCARD` of *address* at a fixed rate; return how many were sent.

    Args:
        address: IPv4 address.
        bits_per_second: rate of the flood, including IP and UDP headers.
        seconds: duration.
    """
    sent, began = 0, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while (now := time.monotonic() - began) < seconds:
            for _ in range(round(now * bits_per_second / 8 / DATAGRAM) - sent):
                sock.sendto(bytes(DATAGRAM - 28), (address, DISCARD))
                sent += 1
            time.sleep(0.005)  # interval between bursts of a few datagrams
    return sent
