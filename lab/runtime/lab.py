"""The verbs of a lab, whatever runs it: what the command line and the experiments may ask for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

from runtime.topology import Topology


@dataclass(frozen=True, slots=True)
class HostStatus:
    """What the runtime says of one host."""

    name: str
    #: running, paused, exited, restarting, … or "absent".
    state: str
    #: healthy, unhealthy, starting, or "" where there is no check.
    health: str
    address: str | None
    #: Resident memory in bytes; None when not asked for or not running.
    memory: int | None = None


class Lab(Protocol):
    """A lab, up or not, on a machine that can run one."""

    #: ``docker`` or ``netns``.
    runtime: str
    topology: Topology

    def close(self) -> None:
        """Give back what the way to the lab needs; the lab goes on."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    # --- the whole --------------------------------------------------------------------------------------------------

    def up(self, profiles: Sequence[str] = (), *, build: bool = True, publish: bool = True) -> None:
        """Start every host and wait until all are healthy.

        Args:
            profiles: of the compose file, beside what always starts.
            build: make the image first, where there is one.
            publish: listen on the machine's 127.0.0.1 for what stands under ``ports``.

        Raises:
            EngineError: the runtime can not, or a host did not become healthy.
        """

    def down(self, *, volumes: bool = True) -> None:
        """Remove everything that `up` made, and the volumes unless told otherwise."""

    def status(self, *, memory: bool = False) -> list[HostStatus]:
        """Return one entry per service of the compose file."""
        ...

    def logs(self, hosts: Sequence[str], *, follow: bool = False, tail: str = "all") -> int:
        """Show the logs of *hosts* (all when empty) on our standard output: their last *tail* lines, in digits, or "all"."""
        ...

    def require_up(self) -> None:
        """Raise `LabDownError` unless every host that plain ``up`` starts is running."""

    # --- one host ---------------------------------------------------------------------------------------------------

    def start(self, host: str) -> None:
        """Start *host* again after `stop` or `kill`."""

    def stop(self, host: str) -> None:
        """SIGTERM, then SIGKILL after its grace period."""

    def kill(self, host: str) -> None:
        """SIGKILL, as a power cut would."""

    def pause(self, host: str) -> None:
        """Freeze every process of *host*: it is reachable and says nothing."""

    def unpause(self, host: str) -> None:
        """Let a paused *host* go on."""

    def exec(self, host: str, command: Sequence[str], *, interactive: bool = False) -> int:
        """Run *command* with the network and resolver of *host*, on our standard streams; return its exit code."""
        ...

    def capture(self, host: str, command: Sequence[str]) -> tuple[int, bytes, bytes]:
        """Run *command* on *host* as the host's user; return its exit code, standard output and standard error."""
        ...

    def call(self, host: str, method: str, path: str, body: Any = None, *, timeout: float = 15.0) -> Any:
        """Send a request to the admin port of *host*; return its JSON (or text).

        Raises:
            LabDownError: the host does not run, or its admin port does not answer.
            RefusedError: the host answered, and refused.
        """

    def run_lab(self, arguments: Sequence[str], *, stdin: IO[bytes] | None = None) -> int:
        """Run the command line inside the lab, on a host of its own; return its exit code.

        Args:
            arguments: what follows ``firstbyte``.
            stdin: becomes its standard input; None: ours.
        """
        ...

    def fetch_results(self, into: Path) -> list[Path]:
        """Copy what the lab's results volume holds into *into*; return each new folder of a run."""
        ...
