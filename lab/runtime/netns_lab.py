"""The lab in network namespaces: the same compose file without an engine, an image or a daemon.

Needs Linux with /dev/net/tun and either root or unprivileged user namespaces.  Everything that runs hangs on one process
(`netns_engine.supervisor`); this is how the command line starts it, asks it, and clears up after it.
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
from typing import Any, Self

from netns_engine import compose, control
from netns_engine.cgroups import Limits, controllers
from netns_engine.compose import COMPOSE_FILE
from netns_engine.entering import enter_host, move_below
from netns_engine.filesystem import Sources, show_network
from netns_engine.host_log import HostLog
from netns_engine.ports import listen
from netns_engine.prerequisites import require_machine
from netns_engine.state import StateFolder
from runtime.errors import EngineError, LabDownError, LabError, RefusedError
from runtime.lab import HostStatus
from runtime.topology import Topology
from telemetry.call import CallError, ask

ADMIN_PORT = 9900
#: Seconds: for all hosts to become healthy, for the supervisor to begin, for the lab to drain.
UP_TIMEOUT, BEGIN_TIMEOUT, DOWN_TIMEOUT = 90.0, 10.0, 6.0
#: Seconds between two looks while waiting, and lines of a broken host's log that an error shows.
LOOK, LAST_LINES = 0.05, 3


class NetnsLab:
    """The verbs of the lab, in network namespaces."""

    runtime = "netns"

    def __init__(self, topology: Topology, state: StateFolder | None = None) -> None:
        self.topology = topology
        self._state = state or StateFolder.find(topology.project)
        self._sources = Sources(topology.project, self._state.volumes)

    def close(self) -> None:
        """Nothing is held between two verbs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_up(self) -> bool:
        """Whether a supervisor runs for this state folder."""
        return self._state.running() is not None

    # --- the whole --------------------------------------------------------------------------------------------------

    def up(self, profiles: Sequence[str] = (), *, build: bool = True, publish: bool = True) -> None:
        """Start every host and wait until all are healthy; what was begun is undone when one does not become so.

        A lab that is up already gets what it lacks of *profiles*.
        """
        del build
        file = compose.load(self.topology.project / COMPOSE_FILE)
        chosen = file.chosen(tuple(profiles))
        with self._state.locked():
            fresh = self._state.supervisor() is None or not self.is_up
            present = set() if fresh else {s.name for s in self.status() if s.state != "absent"}
            new = [service for service in chosen if service.name not in present]
            ports = [(service, port) for service in new for port in service.ports] if publish else []
            if fresh:
                require_machine(file)
                self._clear(volumes=False)
            with contextlib.ExitStack() as stack:
                listeners = [stack.enter_context(listen(port)) for _, port in ports]
                try:
                    if fresh:
                        self._begin()
                    request = {
                        "do": "up",
                        "profiles": list(profiles),
                        "ports": [[service.name, port.target] for service, port in ports],
                    }
                    self._ask(request, [each.fileno() for each in listeners])
                    self._until_well([service.name for service in chosen])
                except BaseException:
                    if fresh:
                        self._end(volumes=False)
                    raise

    def down(self, *, volumes: bool = True) -> None:
        """End the lab, and clear what one that was killed has left."""
        self._state.supervisor()  # refuses the state of another version
        with self._state.locked():
            self._end(volumes=volumes)

    def status(self, *, memory: bool = False) -> list[HostStatus]:
        """Return one entry per service of the compose file."""
        hosts: dict[str, Any] = {}
        if self.is_up:
            answer, _ = self._ask({"do": "status", "memory": memory})
            hosts = answer["hosts"]
        return [
            HostStatus(host.name, found["state"], found["health"], found["address"] or host.address, found["memory"])
            if (found := hosts.get(host.name))
            else HostStatus(host.name, "absent", "", host.address)
            for host in self.topology.hosts
        ]

    def logs(self, hosts: Sequence[str], *, follow: bool = False, tail: str = "all") -> int:
        """Show the logs of *hosts* (all when empty) on our standard output, as Compose does."""
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
            time.sleep(0.2)  # polls: logs are files
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

    # --- one host ---------------------------------------------------------------------------------------------------

    def start(self, host: str) -> None:
        """Start *host* again after `stop` or `kill`."""
        self._act(host, "start")
        self._until(host, lambda state: state not in {"created", "exited", "restarting"})

    def stop(self, host: str) -> None:
        """SIGTERM, then SIGKILL after its grace period."""
        self._act(host, "stop", timeout=None)

    def kill(self, host: str) -> None:
        """SIGKILL, as a power cut would."""
        self._act(host, "kill")

    def pause(self, host: str) -> None:
        """Freeze every process of *host*: it is reachable and says nothing."""
        self._act(host, "pause")

    def unpause(self, host: str) -> None:
        """Let a paused *host* go on."""
        self._act(host, "unpause")

    def exec(self, host: str, command: Sequence[str], *, interactive: bool = False) -> int:
        """Run any program of this machine with the network, resolver and volumes of *host*; return its exit code.

        It runs as the caller, in the caller's folder, and sees the caller's files; it ends with the host.
        """
        del interactive  # the terminal is ours, whatever it is
        _, fds = self._ask({"do": "namespaces", "host": self.topology.host(host).name})
        network, name, processes, user = fds
        mounts = compose.load(self.topology.project / COMPOSE_FILE).service(host).mounts
        path = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)])

        def enter() -> None:
            enter_host(network, name, user)
            show_network(mounts, self._sources)
            move_below(processes)

        try:
            return subprocess.run(
                list(command),
                check=False,
                preexec_fn=enter,  # between fork and exec is the only time when one may change namespaces
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
        self.topology.host(host)
        out_read, out = os.pipe()
        err_read, err = os.pipe()
        try:
            with Path(os.devnull).open("rb") as nothing:
                connection = self._send(
                    {"do": "exec", "host": host, "argv": list(command)}, [nothing.fileno(), out, err]
                )
        finally:
            os.close(out)
            os.close(err)
        with Path(f"/proc/self/fd/{out_read}").open("rb") as out_file, os.fdopen(err_read, "rb") as err_file:
            os.close(out_read)
            parts: dict[str, bytes] = {}
            reader = threading.Thread(target=lambda: parts.setdefault("err", err_file.read()))
            reader.start()
            parts["out"] = out_file.read()
            reader.join()
        return self._exit(connection), parts["out"], parts["err"]

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        """Send a request to the admin port of *host*, over a socket in the host's own network."""
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
        """Return a socket, not connected, that lives in the network of *host*."""
        self.topology.host(host)
        word = "tcp" if kind == socket.SOCK_STREAM else "udp"
        _, fds = self._ask({"do": "socket", "host": host, "kind": word})
        return socket.socket(fileno=fds[0])

    def run_lab(self, arguments: Sequence[str], *, interactive: bool = False) -> int:
        """Run the command line inside the lab, on a host of its own; return its exit code."""
        del interactive
        connection = self._send({"do": "run", "service": "lab", "arguments": list(arguments)}, [0, 1, 2])
        return self._exit(connection)

    def fetch_results(self, into: Path) -> list[Path]:
        """Copy what the lab's results volume holds into *into*; return each new folder of a run."""
        into.mkdir(parents=True, exist_ok=True)
        before = set(into.glob("*/*"))
        results = self._state.volumes / "results"
        if results.is_dir():
            try:  # without the lock and the undo list, which belong to the lab
                shutil.copytree(results, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
            except shutil.Error as error:
                _, target, why = error.args[0][0]
                raise LabError(f"cannot copy results to {target}: {str(why).rpartition(']')[2].strip()}") from None
        return sorted(set(into.glob("*/*")) - before)

    # --- up and down ------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Start the supervisor, and wait until it answers."""
        report, written = os.pipe()
        with (self._state.path / "supervisor.log").open("ab") as log:
            command = [
                sys.executable,
                "-m",
                "netns_engine.supervisor",
                str(self._state.path),
                str(self.topology.project),
            ]
            process = subprocess.Popen(
                [*command, str(written)],
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
        except BaseException:  # Ctrl-C: without its parent's record the supervisor ends, and with it we can end it
            process.kill()
            process.wait()
            raise
        if answer != "ready":
            said = (
                answer or (self._state.path / "supervisor.log").read_text(encoding="utf-8").strip().rpartition("\n")[2]
            )
            raise EngineError(f"the lab can not run here without Docker: {said or 'its supervisor ended'}")

    def _until_well(self, names: Sequence[str]) -> None:
        """Wait until these hosts are as well as they get; raise `EngineError` for one that will not be."""
        deadline = time.monotonic() + UP_TIMEOUT
        while True:
            hosts: dict[str, Any] = self._ask({"do": "status"})[0]["hosts"]
            waiting = []
            for name in names:
                host = hosts[name]
                if host["failure"]:
                    raise EngineError(f"{name} can not start here: {host['failure']}")
                done = host["state"] == "exited" and host["one_shot"] and host["exit_code"] == 0
                broken = (
                    host["health"] == "unhealthy" or host["restarts"] >= 3 or (host["state"] == "exited" and not done)
                )
                if broken:
                    raise EngineError(f"the lab did not come up: {name} {_words(host)}{self._last_lines(name)}")
                if not done and (host["state"] != "running" or host["health"] == "starting"):
                    waiting.append(name)
            if not waiting:
                return
            if time.monotonic() > deadline:
                raise EngineError(
                    f"the lab did not come up in {UP_TIMEOUT:g} s: {', '.join(waiting)} still not healthy"
                )
            time.sleep(LOOK)  # polls the supervisor

    def _end(self, *, volumes: bool) -> None:
        process = self._state.running()
        if process is not None:
            with contextlib.suppress(LabError):  # silent or gone: it is killed below
                control.ask(self._state.control, {"do": "down"}, timeout=DOWN_TIMEOUT)
            deadline = time.monotonic() + 0.5
            while process.alive and time.monotonic() < deadline:
                time.sleep(0.01)  # polls: it is no child of ours
            if process.alive:
                os.kill(process.pid, signal.SIGKILL)
                while process.alive:
                    time.sleep(0.01)  # polls: it is no child of ours
        self._clear(volumes=volumes)

    def _clear(self, *, volumes: bool) -> None:
        Limits(self._state.path, controllers()).remove()
        self._state.clear(volumes=volumes)

    # --- below ------------------------------------------------------------------------------------------------------

    def _ask(
        self, request: dict[str, Any], fds: Sequence[int] = (), *, timeout: float | None = 15.0
    ) -> tuple[dict[str, Any], list[int]]:
        self._require_supervisor()
        return control.ask(self._state.control, request, fds, timeout=timeout)

    def _send(self, request: dict[str, Any], fds: Sequence[int]) -> control.Connection:
        """Send a request whose answer comes when a program ends."""
        self._require_supervisor()
        connection = control.connect(self._state.control, None)
        connection.send(request, fds)
        return connection

    def _exit(self, connection: control.Connection) -> int:
        """Wait for a program to end, pass signals on to it, and return its exit code."""
        with contextlib.closing(connection), _passing_on(connection):
            answer = connection.receive()
        if answer is None:
            raise LabDownError("the lab ended")
        control.check(answer[0])
        return int(answer[0]["exit"])

    def _require_supervisor(self) -> None:
        if self._state.running() is None:
            raise LabDownError(f"the lab is not up (netns, {self._state.path}): start it with `firstbyte up`")

    def _act(self, host: str, verb: str, *, timeout: float | None = 15.0) -> None:
        self.topology.host(host)
        self._ask({"do": verb, "host": host}, timeout=timeout)

    def _until(self, host: str, well: Any) -> None:
        deadline = time.monotonic() + BEGIN_TIMEOUT
        while True:
            found = self._ask({"do": "status"})[0]["hosts"][host]
            if found["failure"]:
                raise LabDownError(f"{host} can not start: {found['failure']}")
            if well(found["state"]):
                return
            if time.monotonic() > deadline:
                raise LabDownError(f"{host} {_words(found)} after {BEGIN_TIMEOUT:g} s")
            time.sleep(LOOK)  # polls the supervisor

    def _log(self, name: str) -> HostLog:
        return HostLog(self._state.log(name))

    def _last_lines(self, name: str) -> str:
        lines, _ = self._log(name).read()
        return "".join(f"\n  {name} | {line}" for line in lines[-LAST_LINES:])


@contextlib.contextmanager
def _passing_on(connection: control.Connection) -> Iterator[None]:
    """Pass SIGINT and SIGTERM on to the program behind *connection* (in the main thread; others get none)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, _: object) -> None:
        with contextlib.suppress(OSError):
            connection.send({"do": "signal", "signal": number})

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _words(host: dict[str, Any]) -> str:
    if host["state"] == "exited" or host["restarts"]:
        return f"ended with exit code {host['exit_code']}"
    return f"is {host['health'] or host['state']}"
