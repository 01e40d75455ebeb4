"""The source address of a connection, and a window of source ports for it (ip(7))."""

import socket
import struct
from dataclasses import dataclass

#: <linux/in.h>.  Python names the first from 3.14 on, the second not at all.
IP_LOCAL_PORT_RANGE, IP_BIND_ADDRESS_NO_PORT = 51, 24


@dataclass(frozen=True, slots=True)
class Source:
    """Source address and ports of outgoing connections."""

    #: A local IPv4 address; None lets the route choose.
    address: str | None = None
    #: First and last source port (Linux 6.3 and later); None uses all of ``ip_local_port_range``.
    ports: tuple[int, int] | None = None

    def apply(self, sock: socket.socket) -> None:
        """Set the source of a socket that is not yet connected.

        The port is chosen by connect() instead of bind(), so one port can serve several destinations.

        Raises:
            OSError: the address is not local, or the kernel lacks a socket option.
        """
        if self.ports is not None:
            low, high = self.ports
            sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", high << 16 | low))
        if self.address is not None:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((self.address, 0))
