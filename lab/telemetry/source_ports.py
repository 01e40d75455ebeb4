"""Where a connection comes from: a source address, and a window of source ports for one socket (ip(7))."""

import socket
import struct
from dataclasses import dataclass

#: <linux/in.h>: Python has no name for the first before 3.14, and none for the second.
IP_LOCAL_PORT_RANGE, IP_BIND_ADDRESS_NO_PORT = 51, 24


@dataclass(frozen=True, slots=True)
class Origin:
    """Where connections come from."""

    #: IPv4 address of ours; None lets the route choose.
    source: str | None = None
    #: First and last source port (Linux 6.3); None for the whole of ``ip_local_port_range``.
    ports: tuple[int, int] | None = None

    def apply(self, sock: socket.socket) -> None:
        """Prepare a socket that is not connected yet; raise `OSError` where the kernel will not.

        connect() chooses the port, not bind(): so that one port serves many destinations.
        """
        if self.ports is not None:
            low, high = self.ports
            sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", high << 16 | low))
        if self.source is not None:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((self.source, 0))
