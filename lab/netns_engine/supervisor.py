"""``python -m netns_engine.supervisor``: the process that runs a lab without Docker, started by `firstbyte up`.

The supervisor is the first process of a PID namespace that contains the whole lab.  When it ends, even by SIGKILL, the
kernel kills every process of the lab and thereby removes its networks, mounts and devices; only the state folder
remains.  `netns_engine.supervision` decides what to do; requests are processed one at a time.
"""

import argparse
import contextlib
import ipaddress
import os
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hostfiles import probe
from netns_engine import compose, control, forward, joining, messages, namespaces, processes
from netns_engine.cgroups import Limits, controllers
from netns_engine.compose import COMPOSE_FILE
from netns_engine.control import Connection
from netns_engine.errors import LabDownError, LabError, UnknownHostError
from netns_engine.filesystem import Sources
from netns_engine.host import Running, SpawnError, Surroundings, exit_code, probe_in, spawn, spawn_in, user_of_services
from netns_engine.host_log import HostLog
from netns_engine.messages import Done, Exited, Failed, HostReport, Hosts, Message, Reply
from netns_engine.state import Process, StateFolder
from netns_engine.supervision import Abandon, Action, Check, Kill, Start, State, Supervision
from netns_engine.wires import Switch

#: Grace period of hosts when the whole lab shuts down, and interval between checks of log sizes, in seconds.
DOWN_GRACE, LOG_INTERVAL = 1.5, 5.0
#: Health-check command that runs in a fork of the supervisor instead of a new interpreter (PROBE).  Forks are cheap, so
#: while a host starts, the interval between its health checks is divided by HASTE.
PROBE, HASTE = ("python", "-m", probe.__name__), 5.0
#: Signals that a client may forward to the program that runs for it.
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(slots=True)
class Present:
    """A host that currently has a process."""

    running: Running
    wire: str | None
    address: ipaddress.IPv4Address | None
    #: PID of the running health check; None if no check is running.
    check: int | None = None


class Supervisor:
    """Event loop of a lab: performs the actions of `Supervision`, reaps child processes, and processes requests."""

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
        #: Callbacks, keyed by child PID; each is called with the child's exit code.
        self._children: dict[int, Callable[[int], None]] = {}
        #: Clients that wait for a host to end, as pairs of the host's name (None: the whole lab) and the connection.
        self._waiting: list[tuple[str | None, Connection]] = []
        #: PID of the program that runs for each client.
        self._programs: dict[Connection, int] = {}
        #: Joined hosts that are being stopped and then removed.
        self._leaving: set[str] = set()
        self._ports: list[forward.Published] = []
        self._forwarder: int | None = None
        self._ending = False
        self._runs = 0
        self._selector = selectors.DefaultSelector()
        self._logs_due = 0.0

    # --- event loop ---------------------------------------------------------------------------------------------------

    def serve(self, ready: Callable[[], None]) -> None:
        """Run the lab until a client or SIGTERM shuts it down; call *ready* as soon as requests are accepted."""
        wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        listener = control.listen(self._state.control)
        self._selector.register(wake, selectors.EVENT_READ, lambda: os.read(wake, 4096))
        self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
        ready()
        while not (self._ending and not self._present):
            now = time.monotonic()
            actions = self._supervision.due(now)
            for action in actions:
                if not self._ending or isinstance(action, Kill):
                    self._perform(action)
            self._bound_logs(now)
            for key, _ in self._selector.select(0 if actions else self._time_left(now)):
                key.data()
            self._reap()
        self._limits.remove()
        for _, connection in self._waiting:
            self._reply(connection, Done())

    def _time_left(self, now: float) -> float:
        at = self._supervision.next_due()
        return LOG_INTERVAL if at is None else min(LOG_INTERVAL, max(0.0, at - now))

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
        except (LabError, OSError) as error:
            self._supervision.failed(host, str(error))
            return
        self._present[host] = present
        self._children[present.running.pid] = lambda code: self._exited(host, code)
        self._supervision.started(host, time.monotonic())

    def _spawn(
        self, service: compose.Service, name: str, arguments: tuple[str, ...] | None, streams: tuple[int, ...]
    ) -> Present:
        address = (service.address or self._free_address()) if service.networked else None
        interface = ipaddress.IPv4Interface((address, self._compose.subnet.prefixlen)) if address else None
        wires: list[str] = []

        def plug(pid: int, network: int) -> None:
            if address is not None:
                wires.append(self._switch.connect(name, network, str(address)))
            self._limits.apply(name, pid, memory=service.memory, pids=service.pids)

        for mount in service.mounts:
            self._make_volume(mount)
        running = spawn(service, self._around, interface, plug, arguments=arguments, streams=streams)
        return Present(running, wires[0] if wires else None, address)

    def _exited(self, host: str, code: int) -> None:
        self._forget(host)
        self._supervision.exited(host, code, time.monotonic())
        if host in self._leaving:
            self._remove(host)
        for waiting in [w for w in self._waiting if w[0] == host]:
            self._waiting.remove(waiting)
            self._reply(waiting[1], Done())

    def _forget(self, name: str) -> None:
        present = self._present.pop(name)
        present.running.close()
        if present.wire is not None:
            self._switch.cut(present.wire)

    def _signal(self, host: str, number: int) -> None:
        """Send a signal to the first process of *host*; resume a paused host first, so that it can react."""
        running = self._present[host].running
        with contextlib.suppress(LabError):  # pausing does not work on every machine
            processes.thaw(running.pids)
        processes.send(running.pid, number)

    def _check(self, host: str) -> None:
        present, service = self._present[host], self._supervision.members[host].service
        if service.health is None:
            return
        try:
            if service.health.test == PROBE:
                pid = probe_in(present.running, self._around, PROBE[-1])
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

    def _make_volume(self, mount: compose.Mount) -> None:
        """Create a named volume, owned by the services' user as in the image."""
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
        if now < self._logs_due:
            return
        self._logs_due = now + LOG_INTERVAL
        for name, member in self._supervision.members.items():
            HostLog(self._state.log(name)).bound(member.service.log_size, member.service.log_files)

    # --- requests ---------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            connection = Connection(listener.accept()[0])
            self._selector.register(connection.sock, selectors.EVENT_READ, lambda: self._receive(connection))

    def _receive(self, connection: Connection) -> None:
        try:
            received = connection.receive()
        except OSError:
            received = None
        except LabError as error:
            self._reply(connection, Failed.of(error))
            return
        if received is None:
            self._disconnect(connection)
            return
        request, fds = received
        try:
            self._answer(connection, request, fds)
        except LabError as error:
            self._reply(connection, Failed.of(error))
        except Exception as error:  # an unexpected error in one request must not end the lab
            traceback.print_exc()
            self._reply(connection, Failed.of(error))
        finally:
            for fd in fds:
                os.close(fd)

    def _answer(self, connection: Connection, request: Message, fds: list[int]) -> None:
        match request:
            case messages.Up(profiles, ports):
                self._supervision.add(self._compose.chosen(profiles))
                self._publish(ports, fds)
                self._reply(connection, Done())
            case messages.Status(memory):
                self._reply(connection, Hosts({name: self._report(name, memory) for name in self._names()}))
            case messages.Act(verb, host):
                if self._act(verb, host):
                    self._waiting.append((host, connection))
                else:
                    self._reply(connection, Done())
            case messages.OpenSocket(host, protocol):
                kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
                with namespaces.inside(self._reachable(host).running.net, self._network):
                    made = socket.socket(socket.AF_INET, kind)
                with made:
                    self._reply(connection, Done(), [made.fileno()])
            case messages.OpenNamespaces(host):
                found = self._running(host).running
                user = namespaces.own("user")
                try:
                    self._reply(connection, Done(), [found.net, found.name, found.pids, user])
                finally:
                    os.close(user)
            case messages.Exec(host, argv):
                running = self._running(host).running
                environment = {**dict(self._supervision.members[host].service.environment), "HOME": "/"}
                self._attend(connection, spawn_in(running, self._around, argv, environment, fds))
            case messages.Run(service, arguments):
                self._run(connection, self._compose.service(service), arguments, fds)
            case messages.Join():
                self._join(request)
                self._reply(connection, Done())
            case messages.Leave(host):
                self._leave(connection, host)
            case messages.Signal(number):
                if number in _FORWARDED and connection in self._programs:
                    processes.send(self._programs[connection], number)
            case messages.Down():
                self._waiting.append((None, connection))
                self._end()
            case _:
                raise LabError(f"expected a request, got {request!r}")

    def _act(self, verb: messages.Verb, host: str) -> bool:
        """Apply *verb* to *host*; return whether the client must wait until the host has ended."""
        now, state = time.monotonic(), self._state_of(host)
        match verb:
            case "start":
                self._supervision.start(host)
            case "pause":
                processes.freeze(self._running(host).running.pids)
                self._supervision.pause(host)
            case "unpause":
                if state is not State.PAUSED:
                    raise LabDownError(f"{host} is {state}, expected paused")
                processes.thaw(self._present[host].running.pids)
                self._supervision.resume(host, now)
            case "stop" | "kill":
                if self._supervision.stop(host, now, grace=None if verb == "stop" else 0.0):
                    self._signal(host, signal.SIGTERM if verb == "stop" else signal.SIGKILL)
                    return True
        return False

    def _join(self, request: messages.Join) -> None:
        service = joining.service(self._compose.service(joining.TEMPLATE), request)
        taken = {member.service.address for member in self._supervision.members.values()}
        taken |= self._compose.addresses() | {present.address for present in self._present.values()}
        names = {*self._names(), *(each.name for each in self._compose.services)}
        if service.name in names or service.address in taken:
            raise LabError(f"{service.name if service.name in names else service.address} is taken")
        self._supervision.add((service,))

    def _leave(self, connection: Connection, host: str) -> None:
        """Stop a joined host; `_exited` then removes it."""
        member = self._supervision.members.get(host)
        if member is None or not joining.subject(member.service):
            raise LabDownError(f"{host} has not joined the lab")
        self._leaving.add(host)
        if self._act("stop", host):
            self._waiting.append((host, connection))
        else:
            self._remove(host)
            self._reply(connection, Done())

    def _remove(self, host: str) -> None:
        """Remove a joined host whose process has ended, with its volume and log."""
        self._leaving.discard(host)
        self._supervision.forget(host)
        shutil.rmtree(self._state.volumes / joining.volume(host), ignore_errors=True)
        for log in self._state.log(host).parent.glob(f"{host}.log*"):
            log.unlink()

    def _run(
        self, connection: Connection, service: compose.Service, arguments: tuple[str, ...], fds: list[int]
    ) -> None:
        """Start an additional host of *service* to run one command; the host is removed when the command ends."""
        self._runs += 1
        name = f"{service.name}-run-{self._runs}"
        present = self._present[name] = self._spawn(service, name, arguments, tuple(fds))
        self._attend(connection, present.running.pid, lambda: self._forget(name))

    def _attend(self, connection: Connection, pid: int, then: Callable[[], None] = lambda: None) -> None:
        """When the program *pid* ends, call *then* and send its exit code to the client."""
        self._programs[connection] = pid

        def ended(code: int) -> None:
            then()
            self._programs.pop(connection, None)
            self._reply(connection, Exited(code))

        self._children[pid] = ended

    def _disconnect(self, connection: Connection) -> None:
        """Close the connection to a client that has disconnected, and kill the program that runs for it."""
        if pid := self._programs.pop(connection, None):
            processes.send(pid, signal.SIGKILL)
        self._waiting = [w for w in self._waiting if w[1] is not connection]
        self._selector.unregister(connection.sock)
        connection.close()

    @staticmethod
    def _reply(connection: Connection, reply: Reply, fds: list[int] | None = None) -> None:
        with contextlib.suppress(OSError):  # the client has disconnected, which the selector reports next
            connection.send(reply, fds or ())

    # --- request internals --------------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return list(self._supervision.members)

    def _state_of(self, host: str) -> State:
        member = self._supervision.members.get(host)
        if member is None:
            known = [*(s.name for s in self._compose.services), *self._names()]
            if host not in known:
                raise UnknownHostError(host, known)
            raise LabDownError(f"{host} is absent, expected running")
        return member.state

    def _reachable(self, host: str) -> Present:
        """Return *host*, which must be running or paused; raise `LabDownError` if it has no process."""
        state = self._state_of(host)
        if host not in self._present:
            raise LabDownError(f"{host} is {state}, expected running")
        return self._present[host]

    def _running(self, host: str) -> Present:
        present, state = self._reachable(host), self._state_of(host)
        if state is not State.RUNNING:
            raise LabDownError(f"{host} is {state}, expected running")
        return present

    def _report(self, host: str, memory: bool) -> HostReport:
        member, present = self._supervision.members[host], self._present.get(host)
        used = None
        if memory and present:
            with contextlib.suppress(LabError):
                used = processes.memory(present.running.pids)
        return HostReport(
            state=str(member.state),
            health=member.health,
            exit_code=member.exit_code,
            restarts=member.restarts,
            failure=member.failure,
            one_shot=not member.service.restart and not member.service.health,
            address=str(present.address) if present and present.address else None,
            memory=used,
            subject=joining.subject(member.service),
        )

    def _publish(self, ports: tuple[tuple[str, int], ...], fds: list[int]) -> None:
        """Start forwarding from the listening sockets *fds*, which the client has bound in the machine's network."""
        for (host, target), fd in zip(ports, fds, strict=True):
            self._ports.append(forward.Published(socket.socket(fileno=os.dup(fd)), host, target))
        if fds:
            self._end_forwarder()
            self._forward()

    def _forward(self) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                forward.run(self._ports, self._dial)
            except BaseException:  # an exception must not let the fork continue as a second supervisor
                traceback.print_exc()
            finally:
                os._exit(1)
        self._forwarder = pid
        self._children[pid] = lambda _: self._forward()

    def _end_forwarder(self) -> None:
        if self._forwarder is not None:
            self._children.pop(self._forwarder, None)
            processes.send(self._forwarder, signal.SIGKILL)

    def _dial(self, host: str, protocol: messages.Protocol) -> socket.socket:
        _, fds = control.ask(self._state.control, messages.OpenSocket(host, protocol), Done)
        return socket.socket(fileno=fds[0])

    def _end(self) -> None:
        """Start the shutdown of the lab: send SIGTERM to all hosts at the same time."""
        if self._ending:
            return
        self._ending = True
        self._end_forwarder()
        now = time.monotonic()
        for name in self._names():
            if self._supervision.stop(name, now, grace=DOWN_GRACE):
                self._signal(name, signal.SIGTERM)
        for name in set(self._present) - set(self._names()):
            processes.send(self._present[name].running.pid, signal.SIGKILL)


# --- entry point ------------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Create the lab's namespaces and start a supervisor in them; write "ready" or the error to a descriptor."""
    parser = argparse.ArgumentParser(
        prog="netns_engine.supervisor", description="Runs a lab without Docker; `firstbyte up` starts it."
    )
    parser.add_argument("state", type=Path)
    parser.add_argument("project", type=Path)
    parser.add_argument("report", type=int, help="descriptor that receives 'ready' or the reason for a failure")
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
        if not os.read(recorded, 1):  # the parent ended before it recorded this process's PID
            return 1
        namespaces.make_mounts_private()
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
