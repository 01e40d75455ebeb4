"""Subjects on a Docker engine: two containers that share one network namespace, as in a Kubernetes pod.

The *observer* runs the lab's own image, has the address on the network ``internet``, and sets the routes.  The
*program* is either the user's image, which starts after the routes are set, or a running container of the user; the
observer then joins that container's network namespace.  Labels on the observer record everything that `Pods.remove` has
to undo.
"""

import base64
import contextlib
import time
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import Healthcheck, LogConfig, Mount

from hostfiles.layout import TRUST_ANCHOR
from netns_engine import compose, joining
from netns_engine.compose import COMPOSE_FILE, Service
from runtime.errors import LabError, UsageError
from runtime.subject import FOLDER, Source, Subject
from runtime.topology import Topology

#: Prefix of the labels on the containers of a subject.
LABEL = "firstbyte"
#: Time-out for the observer to set the routes, and grace period for the program to stop, in seconds.
READY_TIMEOUT, GRACE = 20.0, 5
#: Interval between requests to the observer, in seconds.
POLL = 0.1
RESOLV_CONF, TRUST = "/etc/resolv.conf", str(TRUST_ANCHOR.parent)
#: Maximum number of processes of the program.
PIDS = 512


@dataclass(frozen=True, slots=True)
class Pod:
    """The containers of one subject."""

    subject: Subject
    observer: Any
    #: The user's container; the observer if the user's container no longer exists.
    program: Any
    #: Whether the user started the container; such a container keeps running when the subject leaves.
    attached: bool

    def ended(self) -> str:
        """Return how the program ended, such as "ended with exit code 1"; "" while it runs."""
        state = self.program.attrs["State"]
        if state["Running"]:
            return ""
        last = self.program.logs(tail=1).decode(errors="replace").strip()
        return f"ended with exit code {state['ExitCode']}{f': {last[:200]}' if last else ''}"


class Pods:
    """The subjects of one lab."""

    def __init__(self, client: docker.DockerClient, topology: Topology) -> None:
        self._client, self._topology = client, topology

    def all(self) -> dict[str, Pod]:
        """Return the containers of every subject, by the name of the subject's host."""
        filters: dict[str, str | list[str] | bool] = {
            "label": [f"{LABEL}.project={self._topology.name}", f"{LABEL}.subject"]
        }
        pods = (self._pod(each) for each in self._client.containers.list(all=True, filters=filters))
        return {pod.subject.host: pod for pod in pods}

    def require(self, source: Source) -> None:
        """Raise `UsageError` unless the image or the container of *source* can join."""
        if source.container:
            try:
                found = self._client.containers.get(source.container)
            except NotFound:
                raise UsageError(f"expected the name of a container, found no {source.container!r}") from None
            if found.status != "running":
                raise UsageError(f"expected a running container, got {source.container}, which is {found.status}")
            if self._network in found.attrs["NetworkSettings"]["Networks"]:
                raise UsageError(f"{source.container} is already in the lab's network")
            return
        try:
            self._client.images.get(source.words[0])
        except (ImageNotFound, APIError):
            raise UsageError(
                f"expected an image of this engine, found no {source.words[0]!r}: `docker pull` or `docker build` it"
            ) from None

    def start(self, subject: Subject, source: Source) -> None:
        """Start the containers of *subject*; on failure, remove them again."""
        try:
            if source.container:
                self._attach(subject, source.container)
            else:
                self._create(subject, source.words)
        except BaseException as error:
            self._clear(subject.host)
            if isinstance(error, DockerException):
                raise LabError(f"{subject.host} cannot start: {getattr(error, 'explanation', error)}") from None
            raise

    def remove(self, host: str) -> None:
        """Remove the subject *host*; an attached container keeps running, as it was before it joined."""
        self._clear(host)

    # --- start --------------------------------------------------------------------------------------------------------

    def _create(self, subject: Subject, words: tuple[str, ...]) -> None:
        labels = {f"{LABEL}.program": self._program_name(subject.host)}
        endpoint = self._client.api.create_endpoint_config(ipv4_address=subject.address)
        network = {"network": self._network, "networking_config": {self._network: endpoint}}
        template = self._template()
        sysctls = {**dict(template.sysctls), "net.ipv6.conf.all.disable_ipv6": "1"}
        observer = self._observe(subject, labels, {**network, "hostname": subject.host, "sysctls": sysctls})
        mounts = [each for each in self._mounts(subject.host) if each["Target"] in {TRUST, FOLDER, RESOLV_CONF}]
        program = self._client.containers.create(
            words[0],
            list(words[1:]) or None,
            name=self._program_name(subject.host),
            environment=subject.environment(),
            network_mode=f"container:{observer.id}",
            mounts=mounts,
            labels={f"{LABEL}.project": self._topology.name},
            log_config=_log(template),
            pids_limit=PIDS,
        )
        program.start()

    def _attach(self, subject: Subject, name: str) -> None:
        container = self._client.containers.get(name)
        before = _read(container, RESOLV_CONF)
        labels = {
            f"{LABEL}.program": str(container.id),
            f"{LABEL}.attached": "yes",
            f"{LABEL}.resolv": base64.b64encode(before).decode(),
        }
        self._client.networks.get(self._network).connect(container, ipv4_address=subject.address)
        try:
            observer = self._observe(
                subject, labels, {"network_mode": f"container:{container.id}"}, {"HOST_KEEP_DEFAULT": "yes"}
            )
        except BaseException:
            self._client.networks.get(self._network).disconnect(container, force=True)
            raise
        _write(container, RESOLV_CONF, _read(observer, RESOLV_CONF))
        root = _read(observer, str(TRUST_ANCHOR))
        _write(container, str(TRUST_ANCHOR), root)

    def _observe(
        self, subject: Subject, labels: dict[str, str], network: dict[str, Any], more: dict[str, str] | None = None
    ) -> Any:
        """Start the observer of *subject*, and wait until it has set the routes."""
        template, host = self._template(), subject.host
        self._client.volumes.create(
            self._volume(host), labels={"com.docker.compose.project": self._topology.name}
        )  # `compose down` and `DockerLab.down` find it by this label
        check = template.health
        assert check is not None  # noqa: S101 - the compose file declares a health check for the template
        observer = self._client.containers.create(
            self._topology.host(joining.TEMPLATE).image,
            ["--name", subject.name, "--port", str(subject.port)],
            entrypoint=list(template.argv[: template.entrypoint]),
            name=f"{self._topology.name}-{host}-1",
            environment={**dict(template.environment), **(more or {})},
            mounts=self._mounts(host),
            tmpfs=dict(template.tmpfs),
            read_only=template.read_only,
            cap_drop=["ALL"],
            cap_add=[each.upper() for each in template.capabilities],
            security_opt=["no-new-privileges:true"],
            mem_limit=template.memory,
            pids_limit=template.pids,
            healthcheck=Healthcheck(
                test=["CMD", *check.test],
                interval=int(check.interval * 1e9),
                timeout=int(check.timeout * 1e9),
                retries=check.retries,
            ),
            log_config=_log(template),
            labels={
                f"{LABEL}.project": self._topology.name,
                f"{LABEL}.subject": str(subject),
                f"{LABEL}.host": host,
                f"{LABEL}.address": subject.address,
                **labels,
            },
            **network,
        )
        observer.start()
        deadline = time.monotonic() + READY_TIMEOUT
        while not _answers(observer):
            observer.reload()
            if observer.status != "running" or time.monotonic() > deadline:
                said = observer.logs(tail=1).decode(errors="replace").strip()
                raise LabError(f"the observer of {subject.name} did not start: {said or observer.status}")
            time.sleep(POLL)  # polls: the engine reports no event when a service listens
        return observer

    def _template(self) -> Service:
        return compose.load(self._topology.project / COMPOSE_FILE).service(joining.TEMPLATE)

    def _mounts(self, host: str) -> list[Mount]:
        made = []
        for each in joining.mounts(self._template(), host):
            source = str((self._topology.project / each.source).resolve())
            if each.is_volume:
                source = f"{self._topology.name}_{each.source}"
            made.append(Mount(each.target, source, "volume" if each.is_volume else "bind", read_only=each.read_only))
        return made

    # --- removal ------------------------------------------------------------------------------------------------------

    def _clear(self, host: str) -> None:
        """Remove everything that exists of the subject *host*, even after an interrupted start."""
        pod = self.all().get(host)
        if pod is not None and pod.attached and pod.program is not pod.observer:
            with contextlib.suppress(DockerException):  # the container may have stopped meanwhile
                _write(pod.program, RESOLV_CONF, base64.b64decode(pod.observer.labels[f"{LABEL}.resolv"]))
                pod.program.exec_run(["rm", "-rf", TRUST], user="0")
        for name in (self._program_name(host), f"{self._topology.name}-{host}-1"):
            with contextlib.suppress(NotFound):
                container = self._client.containers.get(name)
                with contextlib.suppress(DockerException):  # the container may have stopped already
                    container.stop(timeout=GRACE)
                container.remove(force=True, v=True)
        if pod is not None and pod.attached:
            with contextlib.suppress(DockerException):
                self._client.networks.get(self._network).disconnect(pod.program, force=True)
        with contextlib.suppress(NotFound):
            self._client.volumes.get(self._volume(host)).remove(force=True)

    # --- names --------------------------------------------------------------------------------------------------------

    def _pod(self, observer: Any) -> Pod:
        labels = observer.labels
        subject = Subject.parse(labels[f"{LABEL}.host"], labels[f"{LABEL}.subject"], labels[f"{LABEL}.address"])
        try:
            program = self._client.containers.get(labels[f"{LABEL}.program"])
        except NotFound:
            program = observer
        return Pod(subject, observer, program, f"{LABEL}.attached" in labels)

    @property
    def _network(self) -> str:
        return f"{self._topology.name}_{compose.NETWORK}"

    def _program_name(self, host: str) -> str:
        return f"{self._topology.name}-{host}-program"

    def _volume(self, host: str) -> str:
        return f"{self._topology.name}_{joining.volume(host)}"


def _log(template: Service) -> LogConfig:
    return LogConfig(type="json-file", config={"max-size": str(template.log_size), "max-file": str(template.log_files)})


def _answers(observer: Any) -> bool:
    """Return whether the admin port of *observer* answers; it does so only after the routes are set."""
    try:
        return not observer.exec_run(["python", "-m", "telemetry.call", "GET", "/admin/subject"], user="1000").exit_code
    except APIError:  # the container has ended
        return False


def _read(container: Any, path: str) -> bytes:
    """Return the content of a file in *container*."""
    done = container.exec_run(["cat", path], user="0")
    if done.exit_code:
        raise LabError(f"{container.name}: cannot read {path}: {done.output.decode(errors='replace').strip()}")
    return bytes(done.output)


def _write(container: Any, path: str, content: bytes) -> None:
    """Write a file in *container*, in place because /etc/resolv.conf is a mount; the container must have a shell."""
    text = base64.b64encode(content).decode()
    script = f'mkdir -p "$(dirname {path})" && echo {text} | base64 -d > {path}'
    done = container.exec_run(["sh", "-c", script], user="0")
    if done.exit_code:
        raise LabError(f"{container.name}: cannot write {path}: {done.output.decode(errors='replace').strip()}")
