"""``python -m netns_engine.supervisor``: the one process that a lab without Docker hangs on; `firstbyte up` starts it.

It is first in a PID namespace that holds the whole lab.  Whatever ends it, SIGKILL included, the kernel ends every
process of the lab, and with the last one its networks, mounts and devices: there is no state to repair, only a folder
to clear.  It decides nothing itself (`netns_engine.supervision` does) and answers requests one at a time (`netns_engine.control`).
"""

import argparse
import contextlib
import ipaddress
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netns_engine import compose, control, forward, namespaces, processes
from netns_engine.cgroups import Limits, controllers
from netns_engine.compose import COMPOSE_FILE
from netns_engine.control import Connection
from netns_engine.errors import LabDownError, LabError, UnknownHostError
from netns_engine.filesystem import Sources
from netns_engine.host import Running, SpawnError, Surroundings, ask_in, exit_code, spawn, spawn_in, user_of_services
from netns_engine.host_log import HostLog
from netns_engine.state import Process, StateFolder
from netns_engine.supervision import Abandon, Action, Check, Kill, Start, State, Supervision
from netns_engine.wires import Switch
from telemetry import probe

#: Seconds that hosts get to drain when the whole lab goes, and between two looks at the size of logs.
DOWN_GRACE, LOG_LOOK = 1.5, 5.0
#: The health check that runs without an interpreter of its own, and how much more often than Docker's it may then be run
#: while a host starts.
PROBE, HASTE = ("python", "-m", probe.__name__), 5.0
#: Signals with which a client may reach the program that it runs.
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(slots=True)
class Present:
    """A host that has a process: the process, its wire, its address."""

    running: Running
    wire: str | None
    address: ipaddress.IPv4Address | None
    #: PID of the health check that runs.
    check: int | None = None


class Supervisor:
    """The lab's processes, and the requests about them."""

    def __init__(self, state: StateFolder, project: Path) -> None:
        self._state = state
        self._compose = compose.load(project / COMPOSE_FILE)
        self._supervision = Supervision((), haste=HASTE)
        self._switch = Switch()
        self._network = namespaces.own("net")
        sources = Sources(project, state.volumes)
        self._around = Surroundings(sources, namespaces.own("pid"), user_of_services(project))
        self._limits = Limits(state.path, controllers())
        self._present: dict[str, Present] = {}
        #: What to do when a child ends: called with its exit code.
        self._children: dict[int, Callable[[int], None]] = {}
        #: Who waits for a host to be gone.
        self._waiting: list[tuple[str | None, Connection]] = []
        #: The program that a client runs: its PID, while it runs.
        self._programs: dict[Connection, int] = {}
        self._ports: list[forward.Published] = []
        self._forwarder: int | None = None
        self._ending = False
        self._numbers = 0
        self._selector = selectors.DefaultSelector()
        self._look_at_logs = 0.0

    # --- the loop ---------------------------------------------------------------------------------------------------

    def serve(self, ready: Callable[[], None]) -> None:
        """Run the lab until it is told to end; call *ready* once requests are answered."""
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        listener = control.listen(self._state.control)
        self._selector.register(wake, selectors.EVENT_READ, lambda: os.read(wake, 4096))
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._welcome(listener))
        ready()
        while not (self._ending and not self._present):
            now = time.monotonic()
            actions = self._supervision.due(now)
            for action in actions:
                if not self._ending or isinstance(action, Kill):
                    self._perform(action)
            self._bound_logs(now)
            for key, _ in self._selector.select(0 if actions else self._pause(now)):
                key.data()
            self._reap()
        self._limits.remove()
        for _, connection in self._waiting:
            with contextlib.suppress(OSError):
                connection.send({})

    def _pause(self, now: float) -> float:
        at = self._supervision.next_due()
        return LOG_LOOK if at is None else min(LOG_LOOK, max(0.0, at - now))

    def _perform(self, action: Action) -> None:
        match action:
            case Start(host):
                self._start(host)
            case Check(host):
                self._check(host)
            case Abandon(host):
                present = self._present[host]
                if present.check is not None:
                    processes.send(present.check, signal.SIGKILL)
                    present.check = None
            case Kill(host):
                processes.send(self._present[host].running.pid, signal.SIGKILL)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                ended = self._children.pop(pid, None)
                if ended is not None:
                    ended(exit_code(status))

    # --- hosts ------------------------------------------------------------------------------------------------------

    def _start(self, host: str) -> None:
        service = self._supervision.members[host].service
        try:
            with HostLog(self._state.log(host)).appending() as log, Path(os.devnull).open("rb") as nothing:
                present = self._spawn(service, host, None, (nothing.fileno(), log, log))
        except (SpawnError, LabError, OSError) as error:
            self._supervision.failed(host, str(error))
            return
        self._present[host] = present
        self._children[present.running.pid] = lambda code: self._exited(host, code)
        self._supervision.started(host, time.monotonic())

    def _spawn(
        self, service: compose.Service, name: str, arguments: list[str] | None, streams: tuple[int, ...]
    ) -> Present:
        address = (service.address or self._free_address()) if service.networked else None
        interface = ipaddress.IPv4Interface((address, self._compose.subnet.prefixlen)) if address else None
        wires: list[str] = []

        def plug(pid: int, network: int) -> None:
            if address is not None:
                wires.append(self._switch.connect(name, network, str(address)))
            self._limits.apply(name, pid, memory=service.memory, pids=service.pids)

        for mount in service.mounts:
            self._volume(mount)
        running = spawn(service, self._around, interface, plug, arguments=arguments, streams=streams)
        return Present(running, wires[0] if wires else None, address)

    def _exited(self, host: str, code: int) -> None:
        self._gone(host)
        self._supervision.exited(host, code, time.monotonic())
        for waiting in [w for w in self._waiting if w[0] == host]:
            self._waiting.remove(waiting)
            self._answer(waiting[1], {})

    def _ask_to_end(self, host: str, number: int) -> None:
        """Send the signal; a paused host goes on, or it would never see one."""
        running = self._present[host].running
        with contextlib.suppress(LabError):  # where it could not be paused it need not go on
            processes.thaw(running.pids)
        processes.send(running.pid, number)

    def _memory(self, present: Present) -> int | None:
        try:
            return processes.memory(present.running.pids)
        except LabError:
            return None

    def _gone(self, name: str) -> None:
        present = self._present.pop(name)
        present.running.close()
        if present.wire is not None:
            self._switch.cut(present.wire)

    def _check(self, host: str) -> None:
        present, service = self._present[host], self._supervision.members[host].service
        if service.health is None:
            return
        try:
            if service.health.test == PROBE:
                pid = ask_in(present.running, self._around, PROBE[-1])
            else:
                with Path(os.devnull).open("r+b", buffering=0) as nothing:
                    streams = (nothing.fileno(),) * 3
                    environment = dict(service.environment)
                    pid = spawn_in(present.running, self._around, service.health.test, environment, streams)
        except SpawnError:
            self._supervision.checked(host, time.monotonic(), well=False)
            return
        present.check = pid

        def checked(code: int) -> None:
            if present.check == pid:
                present.check = None
                self._supervision.checked(host, time.monotonic(), well=code == 0)

        self._children[pid] = checked

    def _volume(self, mount: compose.Mount) -> None:
        """Make a volume that a host is to see; the service's user owns it, as in the image."""
        if mount.is_volume:
            folder = self._state.volumes / mount.source
            if not folder.is_dir():
                folder.mkdir(mode=0o755)
                if self._around.uid != os.geteuid():
                    os.chown(folder, self._around.uid, self._around.uid)

    def _free_address(self) -> ipaddress.IPv4Address:
        taken = {present.address for present in self._present.values()}
        for address in self._compose.dynamic.hosts():
            if address not in taken:
                return address
        raise LabError(f"no address is free in {self._compose.dynamic}")

    def _bound_logs(self, now: float) -> None:
        if now < self._look_at_logs:
            return
        self._look_at_logs = now + LOG_LOOK
        for name, member in self._supervision.members.items():
            HostLog(self._state.log(name)).bound(member.service.log_size, member.service.log_files)

    # --- requests ---------------------------------------------------------------------------------------------------

    def _welcome(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            connection = Connection(listener.accept()[0])
            self._selector.register(connection.sock, selectors.EVENT_READ, lambda: self._hear(connection))

    def _hear(self, connection: Connection) -> None:
        try:
            received = connection.receive()
        except (OSError, ValueError):
            received = None
        if received is None:
            self._hang_up(connection)
            return
        request, fds = received
        try:
            self._request(connection, request, fds)
        except UnknownHostError as error:
            self._answer(connection, {"error": str(error), "kind": "unknown", "host": error.name, "known": error.known})
        except (LabDownError, SpawnError) as error:
            self._answer(connection, {"error": str(error), "kind": "down"})
        except LabError as error:
            self._answer(connection, {"error": str(error)})
        except Exception as error:  # a request that we do not understand must not end the lab
            traceback.print_exc()
            self._answer(connection, {"error": f"{type(error).__name__}: {error}"})
        finally:
            for fd in fds:
                os.close(fd)

    def _request(self, connection: Connection, request: dict[str, Any], fds: list[int]) -> None:
        now = time.monotonic()
        match request:
            case {"do": "up", "profiles": [*profiles], "ports": [*ports]}:
                self._supervision.add(self._compose.chosen(tuple(profiles)))
                self._publish(ports, fds)
                self._answer(connection, {})
            case {"do": "status"}:
                memory = bool(request.get("memory"))
                self._answer(connection, {"hosts": {name: self._status(name, memory) for name in self._names()}})
            case {"do": "start", "host": host}:
                self._member(host)
                self._supervision.start(host)
                self._answer(connection, {})
            case {"do": "stop" | "kill" as verb, "host": host}:
                self._member(host)
                if self._supervision.stop(host, now, grace=None if verb == "stop" else 0.0):
                    self._ask_to_end(host, signal.SIGTERM if verb == "stop" else signal.SIGKILL)
                    self._waiting.append((host, connection))
                else:
                    self._answer(connection, {})
            case {"do": "pause", "host": host}:
                processes.freeze(self._running(host).running.pids)
                self._supervision.pause(host)
                self._answer(connection, {})
            case {"do": "unpause", "host": host}:
                if self._member(host) is not State.PAUSED:
                    raise LabDownError(f"{host} is {self._member(host)}, expected paused")
                processes.thaw(self._present[host].running.pids)
                self._supervision.resume(host, now)
                self._answer(connection, {})
            case {"do": "socket", "host": host, "kind": "tcp" | "udp" as kind}:
                type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
                with namespaces.inside(self._reachable(host).running.net, self._network):
                    made = socket.socket(socket.AF_INET, type_)
                with made:
                    self._answer(connection, {}, [made.fileno()])
            case {"do": "namespaces", "host": host}:
                found = self._running(host).running
                with contextlib.closing(_Descriptor(namespaces.own("user"))) as user:
                    self._answer(connection, {}, [found.net, found.name, found.pids, user.fd])
            case {"do": "exec", "host": host, "argv": [*argv]}:
                service = self._supervision.members[host].service if self._member(host) else None
                environment = dict(service.environment) if service else {}
                pid = spawn_in(self._running(host).running, self._around, argv, {**environment, "HOME": "/"}, fds)
                self._attend(connection, pid)
            case {"do": "run", "service": name, "arguments": [*arguments]}:
                self._run(connection, self._compose.service(name), arguments, fds)
            case {"do": "signal", "signal": number} if number in _PASSED_ON:
                if connection in self._programs:
                    processes.send(self._programs[connection], number)
            case {"do": "down"}:
                self._waiting.append((None, connection))
                self._end()
            case _:
                raise LabError(f"expected a request, got {request!r}")

    def _run(self, connection: Connection, service: compose.Service, arguments: list[str], fds: list[int]) -> None:
        """Start one more host of a service for one program; it goes when the program ends."""
        self._numbers += 1
        name = f"{service.name}-run-{self._numbers}"
        present = self._present[name] = self._spawn(service, name, arguments, tuple(fds))
        self._attend(connection, present.running.pid, lambda: self._gone(name))

    def _attend(self, connection: Connection, pid: int, gone: Callable[[], None] = lambda: None) -> None:
        self._programs[connection] = pid

        def ended(code: int) -> None:
            gone()
            self._programs.pop(connection, None)
            self._answer(connection, {"exit": code})

        self._children[pid] = ended

    def _hang_up(self, connection: Connection) -> None:
        """Nobody listens any more: the program that ran for them ends."""
        if pid := self._programs.pop(connection, None):
            processes.send(pid, signal.SIGKILL)
        self._waiting = [w for w in self._waiting if w[1] is not connection]
        self._selector.unregister(connection.sock)
        connection.close()

    @staticmethod
    def _answer(connection: Connection, answer: dict[str, Any], fds: list[int] | None = None) -> None:
        with contextlib.suppress(OSError):  # they hung up; the selector says so next
            connection.send(answer, fds or ())

    # --- what requests need -----------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return list(self._supervision.members)

    def _member(self, host: str) -> State:
        member = self._supervision.members.get(host)
        if member is None:
            known = [s.name for s in self._compose.services]
            if host not in known:
                raise UnknownHostError(host, known)
            raise LabDownError(f"{host} is absent, expected running")
        return member.state

    def _reachable(self, host: str) -> Present:
        state = self._member(host)
        if host not in self._present:
            raise LabDownError(f"{host} is {state}, expected running")
        return self._present[host]

    def _running(self, host: str) -> Present:
        state = self._member(host)
        if state is not State.RUNNING or host not in self._present:
            raise LabDownError(f"{host} is {state}, expected running")
        return self._present[host]

    def _status(self, host: str, memory: bool) -> dict[str, Any]:
        member, present = self._supervision.members[host], self._present.get(host)
        return {
            "state": str(member.state),
            "health": member.health,
            "exit_code": member.exit_code,
            "restarts": member.restarts,
            "failure": member.failure,
            "one_shot": not member.service.restart and not member.service.health,
            "address": str(present.address) if present and present.address else None,
            "memory": self._memory(present) if memory and present else None,
        }

    def _publish(self, ports: list[list[Any]], fds: list[int]) -> None:
        """Take listening sockets that were made in the machine's network, and forward what arrives there."""
        for (host, target), fd in zip(ports, fds, strict=True):
            self._ports.append(forward.Published(socket.socket(fileno=os.dup(fd)), host, target))
        if fds:
            if self._forwarder is not None:
                self._children.pop(self._forwarder, None)
                processes.send(self._forwarder, signal.SIGKILL)
            self._forward()

    def _forward(self) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                forward.run(self._ports, self._dial)
            except BaseException:  # it must not go on as a second supervisor
                traceback.print_exc()
            finally:
                os._exit(1)
        self._forwarder = pid
        self._children[pid] = lambda _: self._forward()

    def _dial(self, host: str, kind: str) -> socket.socket:
        _, fds = control.ask(self._state.control, {"do": "socket", "host": host, "kind": kind})
        return socket.socket(fileno=fds[0])

    def _end(self) -> None:
        """Let every host drain, all at once."""
        if self._ending:
            return
        self._ending = True
        if self._forwarder is not None:
            self._children.pop(self._forwarder, None)
            processes.send(self._forwarder, signal.SIGKILL)
        now = time.monotonic()
        for name in self._names():
            if self._supervision.stop(name, now, grace=DOWN_GRACE):
                self._ask_to_end(name, signal.SIGTERM)
        for name in set(self._present) - set(self._names()):
            processes.send(self._present[name].running.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class _Descriptor:
    fd: int

    def close(self) -> None:
        os.close(self.fd)


# --- the process ------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Make the lab's namespaces, leave a supervisor in them, and say on the descriptor *report* how it went."""
    parser = argparse.ArgumentParser(
        prog="netns_engine.supervisor", description="Supervises a lab; `firstbyte up` starts it."
    )
    parser.add_argument("state", type=Path)
    parser.add_argument("project", type=Path)
    parser.add_argument("report", type=int, help="descriptor that gets 'ready', or what went wrong")
    args = parser.parse_args(argv)
    os.set_inheritable(args.report, False)
    state = StateFolder(args.state)
    recorded, record = os.pipe2(os.O_CLOEXEC)
    try:
        if os.geteuid() != 0:
            namespaces.become_root_of_user_namespace()
        namespaces.unshare(namespaces.NEWNET | namespaces.NEWNS | namespaces.NEWPID | namespaces.NEWIPC)
        pid = os.fork()
        if pid:
            state.record(Process.of(pid))
            os.write(record, b"x")
            return 0
        os.close(record)
        if not os.read(recorded, 1):  # our parent ended before it had written down who we are
            return 1
        namespaces.keep_mounts_private()
        namespaces.mount_proc()
        Supervisor(state, args.project).serve(lambda: _report(args.report, "ready"))
    except (OSError, LabError) as error:
        traceback.print_exc()
        _report(args.report, str(error))
        return 1
    return 0


def _report(fd: int, message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(fd, message.encode())
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
