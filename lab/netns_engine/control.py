"""Control socket between a lab's supervisor and its clients: messages with attached file descriptors (unix(7)).

Access to the state folder grants access to the socket.  A namespace descriptor works in any process that receives it,
so clients need no privileges to reach a host.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from netns_engine.errors import LabDownError, LabError
from netns_engine.messages import Failed, Message, Reply, Request, decode, encode

#: Maximum message size in bytes, and maximum number of descriptors per message (the kernel allows SCM_MAX_FD, 253).
MAX_MESSAGE, MAX_FDS = 128 * 1024, 64

R = TypeVar("R", bound=Reply)


class Connection:
    """One end of a control connection; SOCK_SEQPACKET preserves message boundaries."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message with the descriptors *fds*; raise `OSError` if the peer has closed the connection."""
        socket.send_fds(self.sock, [encode(message)], list(fds))

    def receive(self) -> tuple[Message, list[int]] | None:
        """Return the next message and its descriptors; None if the peer has closed the connection.

        Raises:
            MessageError: the received bytes are not a valid message.
        """
        data, fds, _, _ = socket.recv_fds(self.sock, MAX_MESSAGE, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        try:
            return decode(data), fds
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise

    def receive_reply(self, expected: type[R]) -> tuple[R, list[int]]:
        """Return the reply to a request, and its descriptors.

        Raises:
            LabDownError: the supervisor has ended, or the host is not running.
            UnknownHostError: the host does not exist.
            LabError: the supervisor refused the request for another reason.
        """
        received = self.receive()
        if received is None:
            raise LabDownError("the lab's supervisor ended")
        reply, fds = received
        if isinstance(reply, Failed):
            raise reply.error()
        if not isinstance(reply, expected):
            raise LabError(f"expected {expected.__name__} from the lab's supervisor, got {reply!r}")
        return reply, fds


def listen(path: Path) -> socket.socket:
    """Return a listening control socket bound to *path*."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    path.unlink(missing_ok=True)
    with _ShortName(path) as name:
        sock.bind(name)
    sock.listen(64)
    sock.setblocking(False)
    return sock


def connect(path: Path, timeout: float | None) -> Connection:
    """Connect to the supervisor that listens at *path*; *timeout* applies to each socket operation, in seconds.

    Raises:
        LabDownError: no supervisor listens at *path*.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    sock.settimeout(timeout)
    try:
        with _ShortName(path) as name:
            sock.connect(name)
    except OSError as error:
        sock.close()
        raise LabDownError(f"the lab's supervisor does not answer at {path}: {error.strerror}") from None
    return Connection(sock)


def ask(
    path: Path, request: Request, expected: type[R], fds: Sequence[int] = (), *, timeout: float | None = 15.0
) -> tuple[R, list[int]]:
    """Send one request; return the reply and its descriptors.

    Raises:
        LabDownError: the supervisor has ended, or does not respond within *timeout* seconds.
        LabError: the supervisor refused the request.
    """
    connection = connect(path, timeout)
    try:
        connection.send(request, fds)
        return connection.receive_reply(expected)
    except TimeoutError:
        raise LabDownError(f"the lab's supervisor did not answer {request!r} within {timeout:g} s") from None
    except OSError as error:
        raise LabDownError(f"the lab's supervisor ended: {error.strerror}") from None
    finally:
        connection.close()


class _ShortName:
    """Short alias for *path*, through a descriptor of its folder, that fits in the 107 bytes of sun_path."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)
