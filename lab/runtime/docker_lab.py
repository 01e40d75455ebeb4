"""The lab on a Docker engine: Compose manages the lab, the Docker SDK manages single hosts.

Requires Engine >= 26 and Compose >= 2.24 (``attach: false``, ``start_interval``, health-ordered start).
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

import docker
from docker.errors import APIError, DockerException, NotFound

from netns_engine import compose
from netns_engine.compose import COMPOSE_FILE
from netns_engine.ports import listen
from runtime.address_plan import write_files
from runtime.docker_pods import Pod, Pods
from runtime.errors import EngineError, LabDownError, LabError, RefusedError
from runtime.lab import HostStatus, recheck
from runtime.subject import Source, Subject
from runtime.topology import Topology

#: uid of all services, which also owns the lab's volumes.
HOST_UID = "1000"
MIN_ENGINE = 26
#: Docker API version of Engine 26, the oldest supported engine.
API_VERSION = "1.45"
DEFAULT_SOCKET = "unix:///var/run/docker.sock"
#: Prefix of the labels that Compose sets on containers.
LABEL = "com.docker.compose"
MIN_COMPOSE = (2, 24)


class DockerLab:
    """The operations of `Lab` on a Docker engine."""

    runtime = "docker"

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        where = os.environ.get("DOCKER_HOST", DEFAULT_SOCKET)
        # An explicit version saves a request to the engine.
        self._client = docker.DockerClient.from_env(version=API_VERSION)
        try:
            _try_socket(where)
            version = self._client.api.version(api_version=False)
        except (DockerException, OSError) as error:
            self._client.close()
            raise EngineError(f"no Docker engine answers on {where}: {_reason(error)}") from None
        engine = str(version.get("Version", "?"))
        major = re.match(r"\d+", engine)
        if major is None or int(major[0]) < MIN_ENGINE:
            self._client.close()
            raise EngineError(f"expected Docker Engine >= {MIN_ENGINE}, got {engine}")
        self._pods = Pods(self._client, topology)

    @property
    def topology(self) -> Topology:
        """The hosts of the compose file, followed by the joined ones."""
        return self._topology.joined(self.subjects())

    def close(self) -> None:
        """Close the connection to the engine."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- all hosts ----------------------------------------------------------------------------------------------------

    def up(self, profiles: Sequence[str] = (), *, build: bool = True, publish: bool = True) -> None:
        """Start every host and wait until all are healthy; Compose's output goes to standard error.

        Raises:
            EngineError: Compose is missing or too old, or the lab did not start.
        """
        if not publish:
            raise EngineError("Docker publishes the ports of the compose file: `--no-ports` is for the runtime netns")
        self._require_compose()
        self._require_ports(profiles)
        write_files(self.topology.project)
        arguments = [flag for profile in profiles for flag in ("--profile", profile)]
        result = self._compose(*arguments, "up", "-d", "--wait", *(["--build"] if build else []), stdout=sys.stderr)
        if result.returncode and (reason := self._why_not_up()):
            raise EngineError(reason)
        if build:
            self._rebuild_lab_image()

    def _why_not_up(self) -> str:
        """Return why `up` failed; "" if every host is running and healthy by now.

        Compose uses the result of Docker's last health check, which may be five minutes old; `status` repeats a failed
        check.
        """
        hosts = [each for each in self.status() if each.state != "absent" and each.name not in self._completed()]
        broken = [f"{each.name} ({each.health or each.state})" for each in hosts if not each.good]
        if hosts and not broken:
            return ""
        words = f"the lab did not come up: {', '.join(broken) or 'see above'}; `firstbyte logs HOST` says more"
        return words + self._obstacles()

    def _completed(self) -> set[str]:
        """Return the one-shot services that have exited with code 0."""
        return {
            each.labels[f"{LABEL}.service"]
            for each in self._containers(oneoff=False)
            if each.attrs["State"].get("ExitCode") == 0
            and each.status == "exited"
            and each.attrs["HostConfig"]["RestartPolicy"]["Name"] in {"", "no"}
        }

    def _rebuild_lab_image(self) -> None:
        """Rebuild the image that `run_lab` uses, if it exists; ``compose run`` does not rebuild an outdated image."""
        image = self.topology.host("lab").image
        if not self._client.images.list(name=image):
            return
        if self._compose("--profile", "tools", "build", "--quiet", "lab", stdout=sys.stderr).returncode:
            raise EngineError(f"the image {image} could not be built, see above")

    def _obstacles(self) -> str:
        """Return a message about leftover ``docker compose run`` containers, or "" if there are none."""
        names = [each.name for each in self._containers(oneoff=True)]
        if not names:
            return ""
        return (
            f".\n{', '.join(names)}: started by `docker compose run`, and still there; if it was cut off, "
            f"it keeps volumes of an earlier lab: `firstbyte down`, or `docker rm -f {' '.join(names)}`, "
            "then `firstbyte up`"
        )

    def down(self, *, volumes: bool = True) -> None:
        """Remove all containers (including ``docker compose run``), the networks and, if *volumes*, the volumes."""
        self._require_compose()
        for subject in self.subjects():
            self.leave(subject.host)
        flags = ["-v"] if volumes else []
        result = self._compose(
            "--profile", "*", "down", "--remove-orphans", "--timeout", "5", *flags, stdout=sys.stderr
        )
        if result.returncode:
            raise EngineError("`docker compose down` failed, see above")
        self._remove_leftovers(volumes=volumes)

    def _remove_leftovers(self, *, volumes: bool) -> None:
        """Remove one-off containers that ``docker compose down`` leaves, and the networks and volumes that they use."""
        ours: dict[str, str | list[str] | bool] = {"label": f"{LABEL}.project={self.topology.name}"}
        for container in self._client.containers.list(all=True, filters=ours):
            if f"{LABEL}.config-hash" in container.labels:
                container.remove(force=True, v=True)
        kept = self._client.networks.list(filters=ours) + (self._client.volumes.list(filters=ours) if volumes else [])
        for each in kept:
            each.remove()

    def status(self, *, memory: bool = False) -> list[HostStatus]:
        """Return one entry per service in the compose file."""
        found = {each.labels[f"{LABEL}.service"]: each for each in self._containers(oneoff=False)}
        pods = self._pods.all()
        found |= {host: pod.observer for host, pod in pods.items()}
        answer = []
        for host in self.topology.hosts:
            container = found.get(host.name)
            if container is None:
                answer.append(HostStatus(host.name, "absent", "", host.address))
                continue
            if (pod := pods.get(host.name)) and pod.program.status != "running":
                answer.append(HostStatus(host.name, pod.program.status, "", host.address, reason=pod.ended()))
                continue
            state = container.attrs["State"]
            health = (state.get("Health") or {}).get("Status", "") if isinstance(state, dict) else ""
            resident = _resident(container) if memory and container.status == "running" else None
            status = HostStatus(host.name, container.status, health, host.address, resident)
            answer.append(recheck(self, status, _health_check(container)))
        return answer

    def _containers(self, *, oneoff: bool) -> list[Any]:
        """Return the lab's containers: if *oneoff*, those of ``docker compose run``, else those of ``up``.

        The filter uses the labels `config-hash` and `oneoff`, which only Compose sets; ``docker run`` containers
        inherit the project and service labels from our image.
        """
        labels = [f"{LABEL}.project={self.topology.name}", f"{LABEL}.config-hash", f"{LABEL}.oneoff={oneoff}"]
        return self._client.containers.list(all=True, filters={"label": labels})

    def logs(self, hosts: Sequence[str], *, follow: bool = False, tail: str = "all") -> int:
        """Print the logs of *hosts* (all hosts if empty)."""
        for name in hosts:
            if pod := self._pod(name):
                command = ["docker", "logs", "--tail", tail, *(["--follow"] if follow else []), pod.program.name]
                return subprocess.run(command, check=False).returncode
        flags = ["--follow"] if follow else []
        return self._compose("--profile", "*", "logs", "--tail", tail, *flags, *hosts).returncode

    # --- subjects -----------------------------------------------------------------------------------------------------

    def subjects(self) -> list[Subject]:
        """Return the subjects that have joined the lab."""
        return [pod.subject for pod in self._pods.all().values()]

    def require_joinable(self, source: Source) -> None:
        """Raise `UsageError` unless the image or the running container of *source* exists."""
        self._pods.require(source)

    def join(self, subject: Subject, source: Source) -> None:
        """Start the image of *source*, or attach its container; on failure, remove what was started."""
        self._pods.start(subject, source)

    def leave(self, host: str) -> None:
        """Stop the subject *host*, and remove everything that `join` has created."""
        self._pods.remove(host)

    def ended(self, host: str) -> str:
        """Return how the subject *host* ended, such as "ended with exit code 1"; "" while it runs."""
        return self._pods.all()[host].ended()

    # --- single hosts -------------------------------------------------------------------------------------------------

    def start(self, host: str) -> None:
        """Start *host* after `stop` or `kill`."""
        self._act(host, "start")

    def stop(self, host: str) -> None:
        """Send SIGTERM to *host*, and SIGKILL after its grace period."""
        self._act(host, "stop")

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
        """Run *command* on *host* as the host's user, with our standard streams; return its exit code."""
        flags = ["-it"] if interactive else ["-i"]
        if pod := self._pod(host):
            where = [pod.program.name]
        else:
            self._running(host)
            where = ["-u", HOST_UID, self._name(host)]
        return subprocess.run(["docker", "exec", *flags, *where, *command], check=False).returncode

    def capture(self, host: str, command: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run *command* on *host*; return its exit code, standard output and standard error."""
        container = self._running(host)
        try:
            code, (out, err) = container.exec_run(list(command), user=HOST_UID, demux=True)
        except APIError as error:
            raise LabDownError(f"{host}: {_reason(error)}") from None
        return code, out or b"", err or b""

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        """Send a request to the admin port of *host*; return the JSON (or text) of the response.

        Raises:
            LabDownError: the host is not running, or its admin port does not respond.
            RefusedError: the host refused the request.
        """
        command = ["python", "-m", "telemetry.call", "--timeout", str(timeout), method, path]
        code, out, err = self.capture(host, command if body is None else [*command, json.dumps(body)])
        if code:
            message = err.decode(errors="replace").strip().removeprefix("error: ")
            raise (LabDownError if code == 3 else RefusedError)(f"{host}: {message or f'exit code {code}'}")
        try:
            return json.loads(out)
        except ValueError:
            return out.decode(errors="replace")

    def run_lab(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> int:
        """Run the command line inside the lab, in a new container; return its exit code."""
        command = ["--profile", "tools", "run", "--rm", "--no-deps", "-T", "lab", *arguments]
        return self._compose(*command, stdin=stdin).returncode

    def run_once(
        self, service: str, arguments: Sequence[str], stdin: IO[bytes] | None = None
    ) -> tuple[int, bytes, bytes]:
        """Run *service* once in a new container, with *arguments* in place of the service's usual command."""
        command = ("run", "--rm", "--no-deps", "-T", service, *arguments)
        source = stdin or subprocess.DEVNULL
        done = self._compose(*command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return done.returncode, done.stdout, done.stderr

    def require_up(self) -> None:
        """Raise `LabDownError` unless every host that plain ``up`` starts is running."""
        status = {s.name: s for s in self.status()}
        missing = [h.name for h in self.topology.always if status[h.name].state != "running"]
        if len(missing) == len(self.topology.always):
            raise LabDownError("the lab is not up: start it with `firstbyte up` or `docker compose up -d --wait`")
        if missing:
            raise LabDownError(f"not running: {', '.join(missing)}; start with `docker compose up -d --wait`")

    def fetch_results(self, into: Path) -> list[Path]:
        """Copy the lab's results volume to *into*; return the folders of new runs."""
        into.mkdir(parents=True, exist_ok=True)
        before = set(into.glob("*/*"))
        source = f"{self._name('console')}:/srv/results/."
        result = subprocess.run(["docker", "cp", "-q", source, str(into)], check=False, capture_output=True, text=True)
        if result.returncode:
            raise LabError(f"cannot copy results: {result.stderr.strip()}")
        return sorted(set(into.glob("*/*")) - before)

    # --- internals ----------------------------------------------------------------------------------------------------

    def _name(self, host: str) -> str:
        known = {each.name for each in self._topology.hosts}
        return f"{self._topology.name}-{(self._topology if host in known else self.topology).host(host).name}-1"

    def _pod(self, host: str) -> Pod | None:
        """Return the containers of the subject *host*; None if the compose file has this host.

        Raises:
            UnknownHostError: there is no such host.
        """
        if host in {each.name for each in self._topology.hosts}:
            return None
        found = self._pods.all()
        if host not in found:
            self.topology.host(host)  # raises UnknownHostError if there is no such host
        return found[host]

    def _container(self, host: str) -> Any:
        try:
            return self._client.containers.get(self._name(host))
        except NotFound:
            raise LabDownError(
                f"{host} is not up: start the lab with `firstbyte up` or `docker compose up -d --wait`"
            ) from None

    def _running(self, host: str) -> Any:
        container = self._container(host)
        if container.status != "running":
            raise LabDownError(f"{host} is {container.status}, expected running")
        return container

    def _act(self, host: str, verb: str) -> None:
        try:
            pod = self._pod(host)
            getattr(pod.program if pod else self._container(host), verb)()
        except APIError as error:
            raise LabDownError(f"{verb} {host}: {_reason(error)}") from None

    def _compose(
        self, *arguments: str, stdin: Any = None, stdout: Any = None, stderr: Any = None
    ) -> subprocess.CompletedProcess[bytes]:
        command = ["docker", "compose", "--project-directory", str(self.topology.project), *arguments]
        try:
            return subprocess.run(command, check=False, stdin=stdin, stdout=stdout, stderr=stderr)
        except FileNotFoundError:
            raise EngineError("expected the command `docker` with Compose v2, found none") from None

    def _require_ports(self, profiles: Sequence[str]) -> None:
        """Raise `EngineError` if a published port is in use; Compose would only fail after starting some hosts."""
        running = {host.name for host in self.status() if host.state in {"running", "paused", "restarting"}}
        for service in compose.load(self.topology.project / COMPOSE_FILE).chosen(tuple(profiles)):
            if service.name not in running:
                for port in service.ports:
                    listen(port).close()

    def _require_compose(self) -> None:
        try:
            result = subprocess.run(
                ["docker", "compose", "version", "--short"], check=False, capture_output=True, text=True
            )
        except FileNotFoundError:
            raise EngineError("expected the command `docker` with Compose v2, found none") from None
        match = re.match(r"v?(\d+)\.(\d+)", result.stdout)
        if result.returncode or match is None:
            raise EngineError(f"`docker compose version` failed: {result.stderr.strip() or result.stdout.strip()}")
        if (int(match[1]), int(match[2])) < MIN_COMPOSE:
            raise EngineError(f"expected Docker Compose >= 2.24, got {result.stdout.strip()}")


def _health_check(container: Any) -> tuple[str, ...]:
    test = (container.attrs["Config"].get("Healthcheck") or {}).get("Test") or []
    return tuple(test[1:]) if test[:1] == ["CMD"] else ()


def _resident(container: Any) -> int | None:
    """Return the container's memory use in bytes without the page cache, as ``docker stats`` does."""
    try:
        memory = container.stats(stream=False, one_shot=True)["memory_stats"]
        return int(memory["usage"]) - int(memory["stats"].get("inactive_file", 0))
    except (APIError, KeyError, TypeError):
        return None


def _try_socket(where: str) -> None:
    """Raise `OSError` if nothing listens on the engine's Unix socket; in that case the SDK would leak a socket."""
    if where.startswith("unix://"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(where.removeprefix("unix://"))


def _reason(error: BaseException) -> str:
    inner: BaseException | None = error
    while inner is not None:  # follow the cause chain: requests, urllib3, http.client, then the system error
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror
        inner = inner.__context__
    text = getattr(error, "explanation", None) or str(error)
    return str(text).splitlines()[0]
