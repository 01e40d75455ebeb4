"""Capture of Ethernet frames on the router's network interface with a packet socket (packet(7)).

Packets on the TUN device have no Ethernet header, and opening a packet socket requires CAP_NET_RAW.  Therefore the
host's entry script, still running as root, executes ``python -m wan.frames --device eth0 -- COMMAND…``.  This program
opens an idle packet socket and executes COMMAND, which drops all privileges and inherits the file descriptor
(``WAN_FRAMES_FD``).  Binding the socket and setting its filter require no capability, so the unprivileged service can
later start and stop a capture of one host.
"""

import argparse
import asyncio
import ctypes
import os
import socket
import struct
import sys
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from telemetry import log
from wireformat.pcapng import Frame, Recording

#: Environment variable with the number of the inherited file descriptor.
FD_VARIABLE = "WAN_FRAMES_FD"
ETH_P_ALL = 0x0003
#: The "local experimental" EtherType (IEEE 802).  The lab never uses it, so a socket bound to it receives nothing.
ETH_P_IDLE = 0x88B5
#: Constants from linux/if_packet.h and asm/socket.h.
PACKET_OUTGOING, SOL_PACKET, PACKET_STATISTICS = 4, 263, 6
SO_ATTACH_FILTER, SO_TIMESTAMPNS = 26, 35
#: Maximum frame length in bytes: a packet of 64 KiB that awaits segmentation offload, plus the Ethernet header.
MAX_FRAME = 65_536 + 14
#: Maximum size of one capture in bytes, and the number of frames to read before returning to the event loop.
MAX_BYTES, BATCH = 8 << 20, 64
#: Maximum duration of one capture, in seconds.
MAX_SECONDS = 120.0

logger = log.get("wan.frames")
Instruction = tuple[int, int, int, int]


def host_filter(address: str, except_port: int) -> list[Instruction]:
    """Return a classic BPF program that accepts IPv4 from or to *address*, except TCP and UDP on *except_port*.

    *except_port* is the admin API's port.  It is excluded to keep the requests that control the capture out of it.
    """
    host, accept, drop = int(IPv4Address(address)), 16, 17
    ldh, ldb, ld, ldxb, ldhx, jeq, jset, ret = 0x28, 0x30, 0x20, 0xB1, 0x48, 0x15, 0x45, 0x06

    def jump(at: int, code: int, k: int, yes: int, no: int) -> Instruction:
        return code, yes - at - 1, no - at - 1, k

    return [
        (ldh, 0, 0, 12),  # 0: EtherType
        jump(1, jeq, 0x0800, 2, drop),
        (ld, 0, 0, 26),  # 2: source address
        jump(3, jeq, host, 6, 4),
        (ld, 0, 0, 30),  # 4: destination address
        jump(5, jeq, host, 6, drop),
        (ldb, 0, 0, 23),  # 6: IP protocol number
        jump(7, jeq, 6, 9, 8),
        jump(8, jeq, 17, 9, accept),
        (ldh, 0, 0, 20),  # 9: later fragments have no ports, so accept them
        jump(10, jset, 0x1FFF, accept, 11),
        (ldxb, 0, 0, 14),  # 11: X = length of the IPv4 header
        (ldhx, 0, 0, 14),  # 12: source port
        jump(13, jeq, except_port, drop, 14),
        (ldhx, 0, 0, 16),  # 14: destination port
        jump(15, jeq, except_port, drop, accept),
        (ret, 0, 0, MAX_FRAME),
        (ret, 0, 0, 0),
    ]


@dataclass(slots=True)
class FrameCapture:
    """The captured frames of one host, with a limit on size and time; sans-IO."""

    #: End of the capture, in nanoseconds since the epoch.
    until_ns: int
    max_bytes: int = MAX_BYTES
    frames: list[Frame] = field(default_factory=list)
    bytes: int = 0
    #: Frames that exceeded this capture's size limit or the socket's receive buffer.
    dropped: int = 0

    def offer(self, frame: Frame) -> None:
        """Store *frame*, or count it as dropped if it exceeds the size limit."""
        if self.bytes + len(frame.data) > self.max_bytes:
            self.dropped += 1
        elif frame.time_ns < self.until_ns:
            self.frames.append(frame)
            self.bytes += len(frame.data)

    def recording(self) -> Recording:
        """Return the frames captured so far."""
        return Recording(tuple(self.frames), self.dropped)


class Tap:
    """The inherited packet socket, which receives frames between `start` and `stop`."""

    def __init__(self, sock: socket.socket) -> None:
        self.device = str(sock.getsockname()[0])
        self.capture: FrameCapture | None = None
        self._sock = sock
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def start(self, capture: FrameCapture, address: str, except_port: int) -> None:
        """Start to capture frames from and to *address* into *capture*; must be called from the event loop's thread."""
        self._drain()
        self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)  # reading the statistics resets them
        _attach(self._sock, host_filter(address, except_port))
        self.capture = capture
        asyncio.get_running_loop().add_reader(self._sock, self._read)
        self._sock.bind((self.device, ETH_P_ALL))

    def stop(self) -> None:
        """Read the frames that have already arrived, then end the capture."""
        self._sock.bind((self.device, ETH_P_IDLE))
        asyncio.get_running_loop().remove_reader(self._sock)
        while self._read():
            pass
        if self.capture is not None:
            _, dropped = struct.unpack("II", self._sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            self.capture.dropped += dropped

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _read(self) -> bool:
        """Read up to `BATCH` frames; return whether more may be waiting."""
        capture = self.capture
        try:
            for _ in range(BATCH):
                data, ancillary, _, address = self._sock.recvmsg(MAX_FRAME, 64)
                if capture is not None:
                    capture.offer(Frame(_time_ns(ancillary), address[2] == PACKET_OUTGOING, data))
        except BlockingIOError:
            return False
        return True

    def _drain(self) -> None:
        self.capture = None
        while self._read():
            pass


def inherited() -> Tap | None:
    """Return the packet socket inherited from the host's entry script, or None if there is none."""
    number = os.environ.get(FD_VARIABLE, "")
    if not number.isdigit():
        return None
    try:
        sock = socket.socket(fileno=int(number))
    except OSError as error:
        logger.warning("frames_unavailable", reason=f"descriptor {number}: {error.strerror}")
        return None
    if sock.family != socket.AF_PACKET:
        logger.warning("frames_unavailable", reason=f"descriptor {number} is not a packet socket")
        sock.detach()
        return None
    sock.set_inheritable(False)
    return Tap(sock)


def _attach(sock: socket.socket, program: list[Instruction]) -> None:
    """Attach the BPF *program* to the socket (struct sock_fprog, struct sock_filter)."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))


def _time_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack_from("@ll", data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Open an idle packet socket and execute the command; execute it even if the socket cannot be opened."""
    parser = argparse.ArgumentParser(
        prog="wan.frames",
        description="Open a packet socket, then run a command that inherits it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m wan.frames --device eth0 -- setpriv --reuid 1000 … python -m wan …\n"
        "  python -m wan.frames --device eth0 -- env",
    )
    parser.add_argument("--device", required=True, metavar="NAME", help="interface whose frames can be captured")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND")
    args = parser.parse_args(argv)
    try:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.bind((args.device, ETH_P_IDLE))
    except OSError as error:
        print(f"wan.frames: frames cannot be captured: {args.device}: {error.strerror}", file=sys.stderr, flush=True)
    else:
        os.set_inheritable(sock.fileno(), True)
        os.environ[FD_VARIABLE] = str(sock.detach())
    try:
        os.execvp(args.command[0], args.command)  # noqa: S606 - executing the command is this program's purpose
    except OSError as error:
        print(f"wan.frames: error: {args.command[0]}: {error.strerror}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
