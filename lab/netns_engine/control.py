"""How the command line talks to a lab's supervisor: one request, one answer, file descriptors beside them (unix(7)).

A descriptor is what crosses namespaces: a socket made in a host's network stays there whoever holds it, so the command
line needs no privilege to reach a host, only the right to open the state folder.
"""

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netns_engine.errors import LabDownError, LabError, UnknownHostError

#: Bytes of one message, and descriptors beside it (SCM_MAX_FD is 253).
MAX_MESSAGE, MAX_FDS = 128 * 1024, 64


class Connection:
    """One end of a conversation; messages keep their bounds (SOCK_SEQPACKET)."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send one message; raise `OSError` when the other end is gone."""
        socket.send_fds(self.sock, [json.dumps(message).encode()], list(fds))

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """Return the next message and its descriptors; None when the other end hung up."""
        data, fds, _, _ = socket.recv_fds(self.sock, MAX_MESSAGE, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return None
        return json.loads(data), fds


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at *path*."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    path.unlink(missing_ok=True)
    with _Reached(path) as name:
        sock.bind(name)
    sock.listen(64)
    sock.setblocking(False)
    return sock


def connect(path: Path, timeout: float | None) -> Connection:
    """Return a connection to the supervisor that listens at *path*; *timeout* seconds for each step.

    Raises:
        LabDownError: nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    sock.settimeout(timeout)
    try:
        with _Reached(path) as name:
            sock.connect(name)
    except OSError as error:
        sock.close()
        raise LabDownError(f"the lab's supervisor does not answer at {path}: {error.strerror}") from None
    return Connection(sock)


def ask(
    path: Path, request: dict[str, Any], fds: Sequence[int] = (), *, timeout: float | None = 15.0
) -> tuple[dict[str, Any], list[int]]:
    """Send one request; return the answer and its descriptors.

    Raises:
        LabDownError: the supervisor is gone, or silent for *timeout* seconds.
        LabError: it refused.
    """
    connection = connect(path, timeout)
    try:
        connection.send(request, fds)
        answer = connection.receive()
    except TimeoutError:
        raise LabDownError(f"the lab's supervisor was silent for {timeout:g} s after {request['do']!r}") from None
    except OSError as error:
        raise LabDownError(f"the lab's supervisor ended: {error.strerror}") from None
    finally:
        connection.close()
    if answer is None:
        raise LabDownError("the lab's supervisor ended")
    check(answer[0])
    return answer


def check(answer: dict[str, Any]) -> None:
    """Raise what an answer says went wrong."""
    if "error" in answer:
        kind = {"unknown": UnknownHostError, "down": LabDownError}.get(answer.get("kind", ""), LabError)
        if kind is UnknownHostError:
            raise UnknownHostError(answer["host"], answer["known"])
        raise kind(answer["error"])


class _Reached:
    """A name of at most 107 bytes for *path* (sun_path): through its folder, held open."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)
