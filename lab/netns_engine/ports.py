"""Published ports, bound before any host starts, so that a port in use makes `up` fail early."""

import socket

from netns_engine.compose import Port
from netns_engine.errors import EngineError


def listen(port: Port) -> socket.socket:
    """Return a socket that is bound to the published port *port* on this machine.

    Raises:
        EngineError: the port is in use.
    """
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET, kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((port.address, port.published))
        if kind == socket.SOCK_STREAM:
            sock.listen(128)
    except OSError as error:
        sock.close()
        raise EngineError(
            f"cannot publish {port.address}:{port.published}/{port.protocol}: {error.strerror}: stop what "
            "listens there, choose another port (.env.example), or start without ports "
            "(`firstbyte up --runtime netns --no-ports`)"
        ) from None
    return sock
