"""Source address and source port range of outgoing connections (ip(7))."""

import socket
import struct
from dataclasses import dataclass

#: Socket options from <linux/in.h>. Python defines the first option since 3.14, and does not define the second.
IP_LOCAL_PORT_RANGE, IP_BIND_ADDRESS_NO_PORT = 51, 24


@dataclass(frozen=True, slots=True)
class Source:
    """Source address and port range of outgoing connections."""

    #: Local IPv4 address; None lets the routing table decide.
    address: str | None = None
    #: First and last source port (requires Linux 6.3); None uses the whole ``ip_local_port_range``.
    ports: tuple[int, int] | None = None
    #: Exact source port, which may be outside ``ip_local_port_range``; None lets the kernel choose.
    port: int | None = None

    def apply(self, sock: socket.socket) -> None:
        """Apply the source address and port range to an unconnected socket.

        Unless *port* is given, connect() allocates the port instead of bind(), so that connections to different
        destinations can share a port.

        Raises:
            OSError: the address is not local, or the kernel does not support a socket option.
        """
        if self.ports is not None:
            low, high = self.ports
            sock.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", high << 16 | low))
        if self.port is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.address or "", self.port))
        elif self.address is not None:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((self.address, 0))
