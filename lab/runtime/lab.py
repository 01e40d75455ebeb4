"""The verbs of a lab that both runtimes implement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Protocol, Self

from runtime.errors import LabError
from runtime.topology import Topology


@dataclass(frozen=True, slots=True)
class HostStatus:
    """State of one host, from its runtime."""

    name: str
    #: running, paused, exited, restarting, … or "absent".
    state: str
    #: healthy, unhealthy, starting, or "" where there is no check.
    health: str
    address: str | None
    #: Memory in bytes; None when not requested or not running.
    memory: int | None = None
    #: Output of the failed health check of an unhealthy host.
    reason: str = ""

    @property
    def good(self) -> bool:
        """Whether the host is running, and healthy if it has a health check."""
        return self.state == "running" and self.health in {"healthy", ""}


class Lab(Protocol):
    """A lab on this machine, up or not."""

    #: ``docker`` or ``netns``.
    runtime: str
    topology: Topology

    def close(self) -> None:
        """Close connections to the runtime; the lab keeps running."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    # --- the whole --------------------------------------------------------------------------------------------------

    def up(self, profiles: Sequence[str] = (), *, build: bool = True, publish: bool = True) -> None:
        """Start every host and wait until all are healthy.

        Args:
            profiles: profiles of the compose file to start in addition.
            build: build the images first, where the runtime has any.
            publish: publish the ports of the compose file on 127.0.0.1.

        Raises:
            EngineError: the runtime cannot start the lab, or a host did not become healthy.
        """

    def down(self, *, volumes: bool = True) -> None:
        """Remove everything that `up` created, including the volumes if *volumes*."""

    def status(self, *, memory: bool = False) -> list[HostStatus]:
        """Return one entry per service of the compose file; unhealthy hosts are checked again at once."""
        ...

    def logs(self, hosts: Sequence[str], *, follow: bool = False, tail: str = "all") -> int:
        """Print the last *tail* lines (digits, or "all") of the logs of *hosts* (all when empty)."""
        ...

    def require_up(self) -> None:
        """Raise `LabDownError` unless every host that plain ``up`` starts is running."""

    # --- one host ---------------------------------------------------------------------------------------------------

    def start(self, host: str) -> None:
        """Start *host* after `stop` or `kill`."""

    def stop(self, host: str) -> None:
        """Send SIGTERM, then SIGKILL after the host's grace period."""

    def kill(self, host: str) -> None:
        """Send SIGKILL to every process of *host*."""

    def pause(self, host: str) -> None:
        """Freeze every process of *host*: its kernel still answers, its services do not."""

    def unpause(self, host: str) -> None:
        """Resume a paused *host*."""

    def exec(self, host: str, command: Sequence[str], *, interactive: bool = False) -> int:
        """Run *command* with the network and resolver of *host* and our standard streams; return its exit code."""
        ...

    def capture(self, host: str, command: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run *command* on *host* as the host's user; return its exit code, standard output and standard error."""
        ...

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        """Send a request to the admin port of *host*; return its JSON (or text).

        Raises:
            LabDownError: the host is not running, or its admin port does not answer.
            RefusedError: the host refused the request.
        """

    def run_lab(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> int:
        """Run the command line inside the lab, on a host of its own; return its exit code.

        Args:
            arguments: what follows ``firstbyte``.
            stdin: becomes its standard input; None: ours.
        """
        ...

    def fetch_results(self, into: Path) -> list[Path]:
        """Copy the lab's results volume to *into*; return each new folder of a run."""
        ...


def recheck(lab: Lab, status: HostStatus, health_check: Sequence[str]) -> HostStatus:
    """Run the health check of an unhealthy host now: its runtime may not do so for minutes, after `unpause` for example."""
    if status.state != "running" or status.health != "unhealthy" or not health_check:
        return status
    try:
        code, out, err = lab.capture(status.name, health_check)
    except LabError as error:
        return replace(status, reason=str(error))
    if code == 0:
        return replace(status, health="healthy")
    return replace(status, reason=(out + err).decode(errors="replace").strip() or f"health check: exit code {code}")
