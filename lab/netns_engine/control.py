"""The socket between a lab's supervisor and its clients: messages with file descriptors next to them (unix(7)).

Whoever may open the state folder may use it.  A descriptor keeps its namespace, so clients need no privilege to reach a host.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from netns_engine.errors import LabDownError, LabError
from netns_engine.messages import Failed, Message, Reply, Request, decode, encode

#: Bytes of one message, and descriptors next to it (at most SCM_MAX_FD, 253).
MAX_MESSAGE, MAX_FDS = 128 * 1024, 64

R = TypeVar("R", bound=Reply)


class Connection:
    """One end of a connection; SOCK_SEQPACKET keeps messages apart."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message; raise `OSError` when the other end is closed."""
        socket.send_fds(self.sock, [encode(message)], list(fds))

    def receive(self) -> tuple[Message, list[int]] | None:
        """Return the next message and its descriptors; None when the other end is closed.

        Raises:
            MessageError: the bytes are no message.
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
        """Return the reply to a request.

        Raises:
            LabDownError: the supervisor has ended.
            LabError: it refused; `UnknownHostError` and `LabDownError` where they apply.
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
    """Return a socket that listens at *path*."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    path.unlink(missing_ok=True)
    with _ShortName(path) as name:
        sock.bind(name)
    sock.listen(64)
    sock.setblocking(False)
    return sock


def connect(path: Path, timeout: float | None) -> Connection:
    """Return a connection to the supervisor that listens at *path*; *timeout* in seconds applies to each call.

    Raises:
        LabDownError: no supervisor listens there.
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
        LabDownError: the supervisor is gone, or does not answer within *timeout* seconds.
        LabError: it refused.
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
    """A name for *path* within the 107 bytes of sun_path, through a descriptor of its folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)
