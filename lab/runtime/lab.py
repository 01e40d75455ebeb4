"""Interface of a lab, implemented by both runtimes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol, Self

from runtime.errors import LabError
from runtime.subject import Source, Subject
from runtime.topology import Topology


@dataclass(frozen=True, slots=True)
class HostStatus:
    """State of one host, as reported by its runtime."""

    name: str
    #: State in Docker's terms (running, paused, exited, restarting, …), or "absent".
    state: str
    #: Health: healthy, unhealthy, starting, or "" for a host without a health check.
    health: str
    address: str | None
    #: Memory use in bytes; None if not requested or not running.
    memory: int | None = None
    #: Output of the failed health check, for an unhealthy host.
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether the host is running, and healthy if it has a health check."""
        return self.state == "running" and self.health in {"healthy", ""}


class Lab(Protocol):
    """A lab on this machine, running or not."""

    #: Name of the runtime: ``docker`` or ``netns``.
    runtime: str

    @property
    def topology(self) -> Topology:
        """The hosts of the compose file, followed by the joined ones."""
        ...

    def close(self) -> None:
        """Close connections to the runtime; the lab keeps running."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    # --- all hosts ----------------------------------------------------------------------------------------------------

    def up(self, profiles: Sequence[str] = (), *, build: bool = True, publish: bool = True) -> None:
        """Start every host and wait until all are healthy.

        Args:
            profiles: additional profiles of the compose file to start.
            build: build the images first, if the runtime uses images.
            publish: publish the ports of the compose file on 127.0.0.1.

        Raises:
            EngineError: the runtime cannot start the lab, or a host did not become healthy.
        """

    def down(self, *, volumes: bool = True) -> None:
        """Remove everything that `up` created, including the volumes if *volumes*."""

    def status(self, *, memory: bool = False) -> list[HostStatus]:
        """Return one entry per service in the compose file; unhealthy hosts are checked again immediately."""
        ...

    def logs(self, hosts: Sequence[str], *, follow: bool = False, tail: str = "all") -> int:
        """Print the last *tail* lines (digits, or "all") of the logs of *hosts* (all hosts if empty)."""
        ...

    def require_up(self) -> None:
        """Raise `LabDownError` unless every host that plain ``up`` starts is running."""

    # --- subjects -----------------------------------------------------------------------------------------------------

    def subjects(self) -> list[Subject]:
        """Return the subjects that have joined the lab; an empty list if the lab is down."""
        ...

    def require_joinable(self, source: Source) -> None:
        """Raise `UsageError` unless *source* exists and can join in this runtime."""

    def join(self, subject: Subject, source: Source) -> None:
        """Start *source* as *subject*, whose name and address must be unused; on failure, remove what was started."""

    def leave(self, host: str) -> None:
        """Stop the subject *host*, and remove everything that `join` has created."""

    def ended(self, host: str) -> str:
        """Return how the subject *host* ended, such as "ended with exit code 1"; "" while it runs."""
        ...

    # --- single hosts -------------------------------------------------------------------------------------------------

    def start(self, host: str) -> None:
        """Start *host* after `stop` or `kill`."""

    def stop(self, host: str) -> None:
        """Send SIGTERM to *host*, and SIGKILL after its grace period."""

    def kill(self, host: str) -> None:
        """Send SIGKILL to every process of *host*."""

    def pause(self, host: str) -> None:
        """Freeze every process of *host*: the kernel still accepts connections, but services do not respond."""

    def unpause(self, host: str) -> None:
        """Resume a paused *host*."""

    def exec(self, host: str, command: Sequence[str], *, interactive: bool = False) -> int:
        """Run *command* with the network and resolver of *host* and our standard streams; return its exit code."""
        ...

    def capture(self, host: str, command: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run *command* on *host* as the host's user; return its exit code, standard output and standard error."""
        ...

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        """Send a request to the admin port of *host*; return the JSON (or text) of the response.

        Raises:
            LabDownError: the host is not running, or its admin port does not respond.
            RefusedError: the host refused the request.
        """

    def run_lab(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> int:
        """Run the command line inside the lab, on a new host; return its exit code.

        Args:
            arguments: arguments after ``firstbyte``.
            stdin: standard input of the command; None to inherit ours.
        """
        ...

    def run_once(
        self, service: str, arguments: Sequence[str], stdin: IO[bytes] | None = None
    ) -> tuple[int, bytes, bytes]:
        """Run a service of the compose file once on a new host, with *arguments* in place of its usual command.

        Args:
            service: name of the service.
            arguments: arguments of the service's entry point.
            stdin: standard input; None for empty input.

        Returns:
            Exit code, standard output and standard error.
        """
        ...

    def fetch_results(self, into: Path) -> list[Path]:
        """Copy the lab's results volume to *into*; return the folders of new runs."""
        ...


def recheck(lab: Lab, status: HostStatus, health_check: Sequence[str]) -> HostStatus:
    """Run the health check of an unhealthy host now and return the updated status.

    The runtime may not check the host again for minutes, for example after `unpause`.
    """
    if status.state != "running" or status.health != "unhealthy" or not health_check:
        return status
    try:
        code, out, err = lab.capture(status.name, health_check)
    except LabError as error:
        return replace(status, reason=str(error))
    if code == 0:
        return replace(status, health="healthy")
    return replace(status, reason=(out + err).decode(errors="replace").strip() or f"health check: exit code {code}")
