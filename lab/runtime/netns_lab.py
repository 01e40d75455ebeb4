"""The lab in network namespaces: the client of `netns_engine`.

Starts the supervisor, sends requests to it, and clears the state folder after it has ended.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from hostfiles.layout import ADMIN_PORT
from netns_engine import compose, control, joining
from netns_engine.cgroups import Limits, controllers
from netns_engine.compose import COMPOSE_FILE
from netns_engine.entering import enter_host, move_below
from netns_engine.filesystem import Sources, show_network
from netns_engine.host_log import HostLog
from netns_engine.joining import HERE
from netns_engine.messages import (
    Act,
    Done,
    Down,
    Exec,
    Exited,
    HostReport,
    Hosts,
    Join,
    Leave,
    OpenNamespaces,
    OpenSocket,
    Reply,
    Request,
    Run,
    Signal,
    Status,
    Up,
    Verb,
)
from netns_engine.ports import listen
from netns_engine.prerequisites import require_machine
from netns_engine.state import StateFolder
from runtime.address_plan import write_files
from runtime.errors import EngineError, LabDownError, LabError, RefusedError, UsageError
from runtime.lab import HostStatus, recheck
from runtime.subject import FOLDER, Source, Subject
from runtime.topology import Host, Topology
from telemetry.call import CallError, ask

#: Time-outs in seconds for all hosts to become healthy, for one host to start, and for the lab to shut down.
UP_TIMEOUT, START_TIMEOUT, DOWN_TIMEOUT = 90.0, 10.0, 6.0
#: Polling interval in seconds, and number of log lines of a failed host in an error message.
POLL, LAST_LINES = 0.05, 3
#: Number of restarts during `up` after which a host counts as failed.
MAX_RESTARTS = 3

R = TypeVar("R", bound=Reply)


class NetnsLab:
    """The operations of `Lab` in network namespaces."""

    runtime = "netns"

    def __init__(self, topology: Topology, state: StateFolder | None = None) -> None:
        self._topology = topology
        self._state = state or StateFolder.find(topology.project)
        self._sources = Sources(topology.project, self._state.volumes)

    @property
    def topology(self) -> Topology:
        """The hosts of the compose file, followed by the joined ones."""
        with contextlib.suppress(LabError):  # a damaged state folder is reported by the request that needs the lab
            return self._topology.joined(self.subjects())
        return self._topology

    def close(self) -> None:
        """Do nothing: no connection stays open between two operations."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_up(self) -> bool:
        """Whether a supervisor is running for this state folder."""
        return self._state.running() is not None

    # --- all hosts ----------------------------------------------------------------------------------------------------

    def up(self, profiles: Sequence[str] = (), *, build: bool = True, publish: bool = True) -> None:
        """Start every host and wait until all are healthy; shut the lab down again if a host does not become healthy.

        If the lab is already running, only start the services of *profiles* that are missing.
        """
        del build
        write_files(self.topology.project)
        file = compose.load(self.topology.project / COMPOSE_FILE)
        chosen = file.chosen(tuple(profiles))
        with self._state.locked():
            fresh = self._state.supervisor() is None or not self.is_up
            present = set() if fresh else {s.name for s in self.status() if s.state != "absent"}
            new = [service for service in chosen if service.name not in present]
            ports = [(service.name, port) for service in new for port in service.ports] if publish else []
            if fresh:
                require_machine(file)
                self._clear(volumes=False)
            with contextlib.ExitStack() as stack:
                listeners = [stack.enter_context(listen(port)) for _, port in ports]
                try:
                    if fresh:
                        self._start_supervisor()
                    request = Up(tuple(profiles), tuple((name, port.target) for name, port in ports))
                    self._ask(request, Done, [each.fileno() for each in listeners])
                    self._wait_until_healthy([service.name for service in chosen])
                except BaseException:
                    if fresh:
                        self._end(volumes=False)
                    raise

    def down(self, *, volumes: bool = True) -> None:
        """Shut the lab down; if its supervisor was killed, only clear the state folder."""
        self._state.supervisor()  # raises EngineError for a state folder of another version
        with self._state.locked():
            self._end(volumes=volumes)

    def status(self, *, memory: bool = False) -> list[HostStatus]:
        """Return one entry per service in the compose file."""
        reports = self._reports(memory=memory) if self.is_up else {}
        answer = []
        for host in self.topology.hosts:
            found = reports.get(host.name)
            if found is None:
                answer.append(HostStatus(host.name, "absent", "", host.address))
                continue
            status = HostStatus(host.name, found.state, found.health, found.address or host.address, found.memory)
            answer.append(recheck(self, status, host.health_check))
        return answer

    def logs(self, hosts: Sequence[str], *, follow: bool = False, tail: str = "all") -> int:
        """Print the logs of *hosts* (all hosts if empty) in the format of Compose."""
        for name in hosts:
            self.topology.host(name)
        names = list(hosts) or [h.name for h in self.topology.hosts if self._log(h.name).path.exists()]
        width = max((len(name) for name in names), default=0)
        offsets: dict[str, int] = {}
        for name in names:
            lines, offsets[name] = self._log(name).read()
            for line in lines if tail == "all" else lines[len(lines) - min(int(tail), len(lines)) :]:
                print(f"{name:{width}} | {line}")
        while follow:
            sys.stdout.flush()
            time.sleep(0.2)  # polls: no event signals new log lines
            for name in names:
                lines, offsets[name] = self._log(name).read(offsets[name])
                for line in lines:
                    print(f"{name:{width}} | {line}")
        return 0

    def require_up(self) -> None:
        """Raise `LabDownError` unless every host that plain ``up`` starts is running."""
        status = {s.name: s for s in self.status()}
        missing = [h.name for h in self.topology.always if status[h.name].state != "running"]
        if len(missing) == len(self.topology.always):
            raise LabDownError(f"the lab is not up (netns, {self._state.path}): start it with `firstbyte up`")
        if missing:
            raise LabDownError(f"not running: {', '.join(missing)}; start with `firstbyte start HOST`")

    # --- subjects -----------------------------------------------------------------------------------------------------

    def subjects(self) -> list[Subject]:
        """Return the subjects that have joined the lab; an empty list if the lab is down."""
        reports = self._reports() if self.is_up else {}
        return [Subject.parse(name, each.subject, each.address or "") for name, each in reports.items() if each.subject]

    def require_joinable(self, source: Source) -> None:
        """Raise `UsageError` unless *source* is a program of this machine."""
        if source.container:
            raise UsageError("containers join a lab on Docker; this one runs in namespaces and takes -- COMMAND")
        program = source.words[0]
        if shutil.which(program) is None:
            raise UsageError(f"expected a program of this machine, found no {program!r}")

    def join(self, subject: Subject, source: Source) -> None:
        """Start the program of *source* on a new host; on failure, remove the host."""
        words = ("--name", subject.name, "--port", str(subject.port), "--directory", HERE, "--", *source.words)
        variables = {**subject.environment(), "HOME": FOLDER}
        request = Join(subject.host, subject.address, words, tuple(variables.items()), os.fspath(Path.cwd()))
        self._ask(request, Done)
        deadline = time.monotonic() + START_TIMEOUT
        try:
            while (report := self._reports()[subject.host]).state == "created":
                if time.monotonic() > deadline:
                    raise LabDownError(f"{subject.host} is not started after {START_TIMEOUT:g} s")
                time.sleep(POLL)  # polls: no event signals a change of a host's state
            if report.failure:
                raise LabError(f"{subject.host} cannot start here: {report.failure}")
        except BaseException:
            self.leave(subject.host)
            raise

    def leave(self, host: str) -> None:
        """Stop the subject *host*, and remove it with its volume and log."""
        self._ask(Leave(host), Done, timeout=None)

    def ended(self, host: str) -> str:
        """Return how the subject *host* ended, such as "ended with exit code 1"; "" while it runs."""
        report = self._reports()[host]
        if report.state == "running":
            return ""
        lines, _ = self._log(host).read()
        return f"ended with exit code {report.exit_code}{f': {lines[-1]}' if lines else ''}"

    # --- single hosts -------------------------------------------------------------------------------------------------

    def start(self, host: str) -> None:
        """Start *host* after `stop` or `kill`."""
        self._act(host, "start")
        deadline = time.monotonic() + START_TIMEOUT
        while (report := self._reports()[host]).state in {"created", "exited", "restarting"}:
            if report.failure:
                raise LabDownError(f"{host} cannot start: {report.failure}")
            if time.monotonic() > deadline:
                raise LabDownError(f"{host} {report} after {START_TIMEOUT:g} s")
            time.sleep(POLL)  # polls: no event signals a change of a host's state

    def stop(self, host: str) -> None:
        """Send SIGTERM to *host*, and SIGKILL after its grace period."""
        self._act(host, "stop", timeout=None)

    def kill(self, host: str) -> None:
        """Send SIGKILL to every process of *host*."""
        self._act(host, "kill")

    def pause(self, host: str) -> None:
        """Freeze every process of *host*: the kernel still accepts connections, but services do not respond."""
        self._act(host, "pause")

    def unpause(self, host: str) -> None:
        """Resume a paused *host*."""
        self._act(host, "unpause")

    def exec(self, host: str, command: Sequence[str], *, interactive: bool = False) -> int:
        """Run any program of this machine with the network, resolver and volumes of *host*; return its exit code.

        The program runs as the calling user, in the current folder, with the machine's files, and ends when the host
        ends.
        """
        del interactive  # the program inherits our standard streams
        _, fds = self._ask(OpenNamespaces(self._host(host).name), Done)
        network, name, processes, user = fds
        file = compose.load(self.topology.project / COMPOSE_FILE)
        joined = host not in {each.name for each in file.services}
        mounts = joining.mounts(file.service(joining.TEMPLATE), host) if joined else file.service(host).mounts
        path = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)])

        def enter() -> None:
            enter_host(network, name, user)
            show_network(mounts, self._sources)
            move_below(processes)

        try:
            return subprocess.run(
                list(command),
                check=False,
                preexec_fn=enter,  # a process can change its namespaces only between fork and exec
                env={**os.environ, "PATH": path},
            ).returncode
        except FileNotFoundError:
            raise LabError(f"expected a program of this machine, found no {command[0]!r}") from None
        except subprocess.SubprocessError as error:
            raise LabError(f"cannot enter {host}: {error}") from None
        finally:
            for fd in fds:
                os.close(fd)

    def capture(self, host: str, command: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run *command* on *host* as the host's user; return its exit code, standard output and standard error."""
        self._host(host)
        return self._captured(Exec(host, tuple(command)))

    def run_once(
        self, service: str, arguments: Sequence[str], stdin: IO[bytes] | None = None
    ) -> tuple[int, bytes, bytes]:
        """Run *service* once on a new host, with *arguments* in place of the service's usual command."""
        return self._captured(Run(service, tuple(arguments)), stdin)

    def _captured(self, request: Exec | Run, stdin: IO[bytes] | None = None) -> tuple[int, bytes, bytes]:
        out_read, out = os.pipe()
        err_read, err = os.pipe()
        try:
            with Path(os.devnull).open("rb") as nothing:
                connection = self._send(request, [(stdin or nothing).fileno(), out, err])
        finally:
            os.close(out)
            os.close(err)
        with os.fdopen(out_read, "rb") as out_file, os.fdopen(err_read, "rb") as err_file:
            parts: dict[str, bytes] = {}
            reader = threading.Thread(target=lambda: parts.setdefault("err", err_file.read()))
            reader.start()
            parts["out"] = out_file.read()
            reader.join()
        return self._exit(connection), parts["out"], parts["err"]

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        """Send a request to the admin port of *host* over a socket in the host's own network."""
        token_file = self._state.volumes / "token" / "admin.token"
        token = token_file.read_text(encoding="ascii").strip() if token_file.exists() else None
        connection = http.client.HTTPConnection("127.0.0.1", ADMIN_PORT, timeout=timeout)
        connection.sock = self.socket(host)
        try:
            connection.sock.settimeout(timeout)
            connection.sock.connect(("127.0.0.1", ADMIN_PORT))
            answer = ask(connection, method, path, body, token)
        except CallError as error:
            raise RefusedError(f"{host}: {error.message}") from None
        except (OSError, http.client.HTTPException) as error:
            raise LabDownError(f"{host}: {path}: {error}") from None
        finally:
            connection.close()
        return answer.decode(errors="replace") if isinstance(answer, bytes) else answer

    def socket(self, host: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Return an unconnected socket that belongs to the network of *host*."""
        self._host(host)
        _, fds = self._ask(OpenSocket(host, "tcp" if kind == socket.SOCK_STREAM else "udp"), Done)
        return socket.socket(fileno=fds[0])

    def run_lab(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> int:
        """Run the command line inside the lab, on a new host; return its exit code."""
        streams = [0 if stdin is None else stdin.fileno(), 1, 2]
        return self._exit(self._send(Run("lab", tuple(arguments)), streams))

    def fetch_results(self, into: Path) -> list[Path]:
        """Copy the lab's results volume to *into*; return the folders of new runs."""
        into.mkdir(parents=True, exist_ok=True)
        before = set(into.glob("*/*"))
        results = self._state.volumes / "results"
        if results.is_dir():
            try:  # hidden files (lock, undo log) are not results
                shutil.copytree(results, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
            except shutil.Error as error:
                _, target, why = error.args[0][0]
                raise LabError(f"cannot copy results to {target}: {str(why).rpartition(']')[2].strip()}") from None
        return sorted(set(into.glob("*/*")) - before)

    # --- start and shutdown -------------------------------------------------------------------------------------------

    def _start_supervisor(self) -> None:
        """Start the supervisor and wait until it accepts requests."""
        report, written = os.pipe()
        log_file = self._state.path / "supervisor.log"
        with log_file.open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "netns_engine.supervisor",
                    self._state.path,
                    self.topology.project,
                    str(written),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[written],
                start_new_session=True,
                cwd="/",
            )
        os.close(written)
        try:
            with os.fdopen(report, "r", encoding="utf-8") as file:
                answer = file.read()
            process.wait()
        except BaseException:  # on Ctrl-C, a supervisor whose PID is not yet recorded ends with this process
            process.kill()
            process.wait()
            raise
        if answer != "ready":
            reason = answer or log_file.read_text(encoding="utf-8").strip().rpartition("\n")[2]
            raise EngineError(f"the lab cannot run here without Docker: {reason or 'its supervisor ended'}")

    def _wait_until_healthy(self, names: Sequence[str]) -> None:
        """Wait until these hosts are healthy, or have completed if they run once.

        Raises:
            EngineError: a host failed, or did not become healthy in time.
        """
        deadline = time.monotonic() + UP_TIMEOUT
        while True:
            reports = self._reports()
            waiting = []
            for name in names:
                host = reports[name]
                if host.failure:
                    raise EngineError(f"{name} cannot start here: {host.failure}")
                if host.completed:
                    continue
                if host.health == "unhealthy" or host.restarts >= MAX_RESTARTS or host.state == "exited":
                    raise EngineError(f"the lab did not come up: {name} {host}{self._last_lines(name)}")
                if host.state != "running" or host.health == "starting":
                    waiting.append(name)
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise EngineError(
                    f"the lab did not come up in {UP_TIMEOUT:g} s: {', '.join(waiting)} still not healthy"
                )
            time.sleep(POLL)  # polls: no event signals a change of a host's state

    def _end(self, *, volumes: bool) -> None:
        process = self._state.running()
        if process is not None:
            with contextlib.suppress(LabError):  # a supervisor that does not respond is killed below
                control.ask(self._state.control, Down(), Done, timeout=DOWN_TIMEOUT)
            deadline = time.monotonic() + 0.5
            while process.alive and time.monotonic() < deadline:
                time.sleep(0.01)  # polls: wait() is impossible, because the supervisor is not a child of this process
            if process.alive:
                os.kill(process.pid, signal.SIGKILL)
                while process.alive:
                    time.sleep(0.01)  # polls until SIGKILL has taken effect
        self._clear(volumes=volumes)

    def _clear(self, *, volumes: bool) -> None:
        Limits(self._state.path, controllers()).remove()
        self._state.clear(volumes=volumes)

    # --- requests ---------------------------------------------------------------------------------------------------

    def _ask(
        self, request: Request, expected: type[R], fds: Sequence[int] = (), *, timeout: float | None = 15.0
    ) -> tuple[R, list[int]]:
        self._require_supervisor()
        return control.ask(self._state.control, request, expected, fds, timeout=timeout)

    def _send(self, request: Request, fds: Sequence[int]) -> control.Connection:
        """Send a request whose reply arrives when the program ends; return the connection."""
        self._require_supervisor()
        connection = control.connect(self._state.control, None)
        connection.send(request, fds)
        return connection

    def _exit(self, connection: control.Connection) -> int:
        """Wait for the program that runs for *connection*, forward signals to it, and return its exit code."""
        with contextlib.closing(connection), _forward_signals(connection):
            return connection.receive_reply(Exited)[0].code

    def _reports(self, *, memory: bool = False) -> dict[str, HostReport]:
        return self._ask(Status(memory), Hosts)[0].hosts

    def _require_supervisor(self) -> None:
        if self._state.running() is None:
            raise LabDownError(f"the lab is not up (netns, {self._state.path}): start it with `firstbyte up`")

    def _host(self, name: str) -> Host:
        """Return the host called *name*; ask the supervisor only if the compose file has no such host."""
        known = {host.name for host in self._topology.hosts}
        return (self._topology if name in known else self.topology).host(name)

    def _act(self, host: str, verb: Verb, *, timeout: float | None = 15.0) -> None:
        self._ask(Act(verb, self._host(host).name), Done, timeout=timeout)

    def _log(self, name: str) -> HostLog:
        return HostLog(self._state.log(name))

    def _last_lines(self, name: str) -> str:
        lines, _ = self._log(name).read()
        return "".join(f"\n  {name} | {line}" for line in lines[-LAST_LINES:])


@contextlib.contextmanager
def _forward_signals(connection: control.Connection) -> Iterator[None]:
    """Forward SIGINT and SIGTERM to the program that runs for *connection*.

    Does nothing outside the main thread, which is the only one that can install signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def forward(number: int, _: object) -> None:
        with contextlib.suppress(OSError):
            connection.send(Signal(number))

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
