"""A server with a fixed rate of handshakes, and clients that connect to it simultaneously (scenario `limits`).

The server runs in its own process.  Each handshake costs a pause of fixed length instead of CPU time, so that the
capacity is known and the same on every machine.  The sockets are real, with the kernel's queues.
"""

import argparse
import asyncio
import json
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

#: Reply of the server after a complete handshake.
WELCOME = b"w"
#: Reply of the server to a connection that is refused because the queue is full.
BUSY = b"b"
#: Backlog of a server without a limit.  The kernel caps it at net.core.somaxconn, 4096 by default.
DEEP = 4096
#: Time-out for the server process to stop, in seconds.
STOPS = 10.0


class ServerError(OSError):
    """The server process failed."""


@dataclass(frozen=True, slots=True)
class Served:
    """Counters of a server."""

    #: Number of completed handshakes.
    handshakes: int
    #: Number of completed handshakes with clients that had already closed the connection.
    wasted: int
    #: Number of connections that were refused immediately, because the queue was full.
    refused: int
    #: Longest delay of a handshake relative to the server's schedule, in seconds.
    late: float


class Server:
    """A server process; use it as a context manager.

    Args:
        capacity: handshakes per second.
        backlog: argument of listen().
        admit: maximum number of accepted connections that wait for their handshake; further ones are refused at once.
            If None, the server accepts a connection only when it is ready to start the handshake.
    """

    def __init__(self, capacity: float, backlog: int = DEEP, admit: int | None = None) -> None:
        words = [str(capacity), str(backlog), *([] if admit is None else [str(admit)])]
        self._command = [sys.executable, __file__, *words]  # not with -m, because importing the package takes 1 s

    def __enter__(self) -> Self:
        # The server runs in its own session, so Ctrl-C does not interrupt it; it ends when its standard input ends.
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        if (out := self._child.stdout) is None or not (port := out.readline().strip()):
            self.__exit__()
            raise ServerError(f"expected the port of the server, got exit code {self._child.returncode}")
        #: Address of the server.
        self.address = ("127.0.0.1", int(port))
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.communicate()

    def stop(self) -> Served:
        """End the server and return its counts.

        Raises:
            ServerError: the server did not report in time.
        """
        try:
            out, _ = self._child.communicate(timeout=STOPS)
            return Served(**json.loads(out))
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise ServerError(f"the server did not report its counts: {error}") from None


@dataclass(slots=True)
class Clients:
    """Clients that connect at the same time and retry until they are connected.

    Args:
        to: address of the server.
        timeout: seconds after which a client abandons an attempt.
        pause: returns the seconds until the next attempt, given the number of failed attempts.
    """

    to: tuple[str, int]
    timeout: float
    pause: Callable[[int], float]
    #: Time at which each client was connected, in seconds since the storm began.
    connected: list[float] = field(default_factory=list)
    #: Delay of each attempt and of each time-out relative to its intended time, in seconds.
    lags: list[float] = field(default_factory=list)

    async def storm(self, clients: int, until: float, share: float) -> None:
        """Have *clients* clients connect simultaneously.

        Return after *until* seconds or once the fraction *share* of them is connected, whichever comes first.
        """
        began = asyncio.get_running_loop().time()
        done = asyncio.Event()
        needed = max(1, round(share * clients))

        async def client() -> None:
            attempt, due = 1, began
            while not await self._attempt(due):
                now = asyncio.get_running_loop().time()
                due = now + self.pause(attempt)
                attempt += 1
                await asyncio.sleep(due - now)  # pause before the next attempt
            self.connected.append(asyncio.get_running_loop().time() - began)
            if len(self.connected) >= needed:
                done.set()

        tasks = [asyncio.create_task(client()) for _ in range(clients)]
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(until):
                    await done.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self.connected = sorted(each for each in self.connected if each <= until)

    async def _attempt(self, due: float) -> bool:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self.lags.append(begun - due)
        with socket.socket() as sock:
            sock.setblocking(False)
            try:
                async with asyncio.timeout_at(begun + self.timeout):
                    await loop.sock_connect(sock, self.to)
                    return await loop.sock_recv(sock, 1) == WELCOME
            except TimeoutError:
                self.lags.append(loop.time() - begun - self.timeout)
            except OSError:  # the server reset the connection, so this attempt has failed
                pass
            return False


def _serve(listener: socket.socket, capacity: float, admit: int | None) -> Served:
    """Serve connections from *listener* until standard input ends, and return the counters."""
    waiting: deque[socket.socket] = deque()
    handshakes = wasted = refused = 0
    done, late = 0.0, 0.0
    idle = True
    while True:
        watched = [sys.stdin, *([listener] if admit is not None or not waiting else [])]
        timeout = max(0.0, done - time.monotonic()) if waiting else 0.0
        ready = select.select(watched, [], [], timeout)[0]
        if not ready and not waiting:
            idle = True
            ready = select.select(watched, [], [])[0]
        now = time.monotonic()
        if sys.stdin in ready:
            return Served(handshakes, wasted, refused, late)
        if listener in ready:
            sock, _ = listener.accept()
            if admit is not None and len(waiting) >= admit:
                refused += 1
                _answer(sock, BUSY)
            else:
                if not waiting:
                    # After an idle period the schedule starts anew.  Otherwise the connection was waiting in the listen
                    # queue, so its handshake is scheduled directly after the previous one, even if this process is
                    # late.
                    done = (now if idle else done) + 1 / capacity
                    idle = False
                waiting.append(sock)
        elif waiting and now >= done:
            late = max(late, now - done)
            handshakes += 1
            wasted += _answer(waiting.popleft(), WELCOME)
            done += 1 / capacity if waiting else 0.0


def _answer(sock: socket.socket, reply: bytes) -> bool:
    """Send *reply* and close the connection; return whether the client had already closed it."""
    sock.setblocking(False)
    with sock, suppress(OSError):
        with suppress(BlockingIOError):
            return not sock.recv(1)
        sock.send(reply)
        return False
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Listen on a free loopback port, print the port, and serve until EOF on standard input.

    Then print the counters of handshakes and refused connections (`Served`) as JSON.
    """
    parser = argparse.ArgumentParser(description="Serve a fixed number of handshakes per second.")
    parser.add_argument("capacity", type=float)
    parser.add_argument("backlog", type=int)
    parser.add_argument("admit", type=int, nargs="?")
    args = parser.parse_args(argv)
    with socket.create_server(("127.0.0.1", 0), backlog=args.backlog) as listener:
        print(listener.getsockname()[1], flush=True)
        served = _serve(listener, args.capacity, args.admit)
    print(json.dumps({name: getattr(served, name) for name in Served.__slots__}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
