"""Several processes of one service that share its ports (``--workers N``).

    supervisor ─┬─ worker 1 … worker N     each listens on the service's ports with SO_REUSEPORT
                └─ front                   admin port: merges the responses of the workers (`telemetry.front`)

The supervisor forks after the service has imported its modules and loaded its data, so that the processes share that
memory.  The supervisor runs no event loop and opens no connection, and can therefore fork again at any time: when a
worker ends, it is restarted after a pause.  The supervisor forwards SIGHUP to the workers; on SIGTERM, it waits until
they have drained.

A restarted worker inherits the data that the supervisor loaded at its own start or on the last SIGHUP (*reload*).  The
files may have changed since then, so the service must reload them if `Worker.again` is true.
"""

import argparse
import ctypes
import gc
import mmap
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from telemetry import log
from telemetry.front import Front, Rules, serve

#: Pause before the first restart of a process, maximum pause (each restart doubles the pause), and uptime that resets
#: the pause, all in seconds.
FIRST_PAUSE, MAX_PAUSE, SETTLED = 0.1, 30.0, 10.0
#: Exit code of a usage error; restarting does not help.
USAGE = 2
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1

logger = log.get("telemetry.workers")


@dataclass(frozen=True, slots=True)
class Worker:
    """One process of a service."""

    #: Number of the worker, from 1.
    number: int = 1
    #: Whether this process replaces an earlier one with the same number.
    again: bool = False

    @property
    def first(self) -> bool:
        """Whether this worker runs the tasks that only one process may run, such as renewing the certificate."""
        return self.number == 1

    @property
    def announces(self) -> bool:
        """Whether this process prints the addresses on which the service listens."""
        return self.first and not self.again


def reserve(endpoint: tuple[str, int], kind: int = socket.SOCK_STREAM) -> tuple[str, int]:
    """Return *endpoint* with port 0 replaced by a free port, after checking that no other program listens there.

    With SO_REUSEPORT alone, a second instance of a service would silently receive part of the connections.

    Raises:
        OSError: the address is in use or not local.
    """
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(endpoint)
        if kind == socket.SOCK_STREAM:
            probe.listen(1)
        address: tuple[str, int] = probe.getsockname()[:2]
        return address


def run(
    args: argparse.Namespace,
    work: Callable[[Worker], int],
    rules: Rules | None = None,
    reload: Callable[[], None] | None = None,
) -> int:
    """Run ``args.workers`` processes of a service until SIGTERM; return the exit code.

    Must be called before an event loop or a thread is started.  With one worker, it only calls *work*.

    Args:
        args: parsed arguments of `telemetry.command`; in the workers, ``admin`` is replaced by a Unix socket.
        work: function that runs the service in a worker until SIGTERM, and returns the exit code.
        rules: how admin requests are distributed to the workers and their responses merged.
        reload: function that reloads files; called in the supervisor on SIGHUP, so that restarted workers inherit the
            new data. It must not raise an exception.

    Raises:
        OSError: the admin port is in use.
    """
    if args.workers == 1:
        return work(Worker())
    return _Supervisor(args, work, rules or Rules(), reload or (lambda: None)).run()


@dataclass(slots=True, eq=False)
class _Child:
    """A worker or the front, whether its process is running or waits for a restart."""

    name: str
    #: Number of the worker; 0 is the front.
    number: int
    pid: int = 0
    started: float = 0.0
    restarts: int = 0
    pause: float = FIRST_PAUSE
    #: Time of the next start, on the monotonic clock; None while the process runs.
    start_at: float | None = 0.0


class _Supervisor:
    def __init__(
        self, args: argparse.Namespace, work: Callable[[Worker], int], rules: Rules, reload: Callable[[], None]
    ) -> None:
        self._args, self._work, self._reload = args, work, reload
        self._stopping = False
        self._code = 0
        self._workers = [_Child(f"worker {number}", number) for number in range(1, args.workers + 1)]
        #: Process ID and number of restarts of each worker, in memory that all processes share.
        self._board: Any = memoryview(mmap.mmap(-1, 8 * args.workers)).cast("I")
        self._sockets = [_unix_socket() for _ in self._workers]
        self._children = list(self._workers)
        if args.admin is not None:
            self._admin = socket.create_server(args.admin, backlog=128)
            print("listening on {}:{} (admin)".format(*self._admin.getsockname()[:2]), flush=True)
            self._front = Front([each.getsockname().decode() for each in self._sockets], self._board, rules)
            self._children.append(_Child("front", 0))

    def run(self) -> int:
        gc.collect()
        gc.freeze()  # otherwise garbage collection writes to shared memory pages, which copies them
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        while not self._stopping or any(child.pid for child in self._workers):
            now = time.monotonic()
            for child in self._children:
                if child.start_at is not None and child.start_at <= now and not self._stopping:
                    self._start(child, now)
            waits = [child.start_at - now for child in self._children if child.start_at is not None]
            if waits and not self._stopping:
                self._heed(signal.sigtimedwait(_SIGNALS, max(0.0, min(waits))))
            else:
                self._heed(signal.sigwaitinfo(_SIGNALS))
            self._reap(time.monotonic())
        for child in self._children:  # the front ends last: the admin port serves until all workers have drained
            if child.pid:
                os.kill(child.pid, signal.SIGTERM)
                os.waitpid(child.pid, 0)
        return self._code

    def _heed(self, received: Any) -> None:
        if received is None or received.si_signo == signal.SIGCHLD:
            return
        if received.si_signo == signal.SIGHUP:
            self._pass_on(signal.SIGHUP)
            self._reload()
        elif not self._stopping:
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, signum: int) -> None:
        for child in self._workers:
            if child.pid:
                os.kill(child.pid, signum)

    def _start(self, child: _Child, now: float) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            os._exit(self._become(child))
        child.pid, child.started, child.start_at = pid, now, None
        self._note(child)

    def _become(self, child: _Child) -> int:
        """Run *child* in the process that was just forked for it; return its exit code."""
        try:
            supervisor = os.getppid()
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # if the supervisor dies, this process is killed
            if os.getppid() != supervisor:
                return 1
            # SIGHUP, SIGTERM and SIGINT stay blocked until the service has set its handlers (`Telemetry.serving`).
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
            log.label(worker=child.number or child.name)
            if child.number:
                if self._args.admin is not None:
                    self._admin.close()
                    self._args.admin = self._sockets[child.number - 1]
                for number, each in enumerate(self._sockets, 1):
                    if number != child.number:
                        each.close()
                return self._work(Worker(child.number, again=child.restarts > 0))
            return serve(self._admin, self._front)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # an exception in a child must not continue in the supervisor's code
            traceback.print_exc()
            return 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def _reap(self, now: float) -> None:
        for child in self._children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            code = os.waitstatus_to_exitcode(status)
            child.pid = 0
            if self._stopping:
                self._code = self._code or (code if code >= 0 else 128 - code)
            elif code == USAGE and not child.restarts:
                self._code = USAGE
                self._stop()
            else:
                pause = FIRST_PAUSE if now - child.started >= SETTLED else child.pause
                child.start_at, child.pause = now + pause, min(pause * 2, MAX_PAUSE)
                child.restarts += 1
                logger.error("worker_ended", process=child.name, exit_code=code, restarts=child.restarts, pause_s=pause)
            self._note(child)

    def _note(self, child: _Child) -> None:
        if child.number:
            self._board[2 * child.number - 2] = child.pid
            self._board[2 * child.number - 1] = child.restarts


def _unix_socket() -> socket.socket:
    """Return a listening Unix socket with an abstract address, so that no writable directory is needed."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("")
    listening.listen(16)
    return listening
