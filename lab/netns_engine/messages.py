"""Requests to the supervisor, its replies, and their encoding: one JSON object per message.

Messages can have attached file descriptors (`netns_engine.control`); each class lists the descriptors that it uses.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from netns_engine.errors import LabDownError, LabError, UnknownHostError

Verb = Literal["start", "stop", "kill", "pause", "unpause"]
Protocol = Literal["tcp", "udp"]


class MessageError(LabError):
    """The bytes are not a valid message of this version."""


# --- requests ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Up:
    """Start the services of *profiles*.  Descriptors: one listening socket per entry of *ports*.  Reply: `Done`."""

    profiles: tuple[str, ...]
    #: Each published port, as a pair of host name and port on that host.
    ports: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Status:
    """Return the state of every host.  Reply: `Hosts`."""

    memory: bool = False


@dataclass(frozen=True, slots=True)
class Act:
    """Apply *verb* to *host*.  Reply: `Done`; for stop and kill, it is sent after the host has ended."""

    verb: Verb
    host: str


@dataclass(frozen=True, slots=True)
class OpenSocket:
    """Create an unconnected IPv4 socket in the network of *host*.  Reply: `Done` with the socket's descriptor."""

    host: str
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class OpenNamespaces:
    """Open the namespaces of *host*.  Reply: `Done` with the descriptors net, uts, pid and user, in this order."""

    host: str


@dataclass(frozen=True, slots=True)
class Exec:
    """Run a program on a running *host* as its user.  Descriptors: stdin, stdout, stderr.  Reply: `Exited`."""

    host: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Start a new host of *service* to run one command.  Descriptors: stdin, stdout, stderr.  Reply: `Exited`."""

    service: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """Add a host for a program of the user, as a copy of the service `joining.TEMPLATE`.  Reply: `Done`."""

    host: str
    #: IPv4 address in the lab's subnet.
    address: str
    #: Arguments after the template's entry point.
    arguments: tuple[str, ...]
    #: Environment variables in addition to those of the template, as pairs of name and value.
    environment: tuple[tuple[str, str], ...]
    #: Folder of the user, which is mounted read-only at `joining.HERE` on the host.
    folder: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Stop a host that `Join` has added, and remove it with its volume and log.  Reply: `Done`, after the removal."""

    host: str


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to the program that this connection started with `Exec` or `Run`.  No reply."""

    number: int


@dataclass(frozen=True, slots=True)
class Down:
    """Shut the lab down after its hosts have drained.  Reply: `Done` after every host has ended."""


Request = Up | Status | Act | OpenSocket | OpenNamespaces | Exec | Run | Join | Leave | Signal | Down

# --- replies ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done:
    """The request was completed."""


@dataclass(frozen=True, slots=True)
class HostReport:
    """State of one host at the time of the request."""

    #: Value of `supervision.State`.
    state: str
    #: Health: healthy, unhealthy, starting, or "" for a host without a health check.
    health: str
    #: Exit code of the last run; None before the first exit.
    exit_code: int | None
    restarts: int
    #: Reason why the machine could not start the host; "" if there was no failure.
    failure: str
    #: Whether the service runs once and exits.
    one_shot: bool
    address: str | None
    #: Memory use in bytes; None unless requested and available.
    memory: int | None
    #: DNS name and port of a host that `Join` has added, as NAME:PORT; "" for other hosts.
    subject: str = ""

    @property
    def completed(self) -> bool:
        """Whether this is a one-shot service that has exited with 0."""
        return self.one_shot and self.state == "exited" and self.exit_code == 0

    def __str__(self) -> str:
        if self.state == "exited" or self.restarts:
            return f"ended with exit code {self.exit_code}"
        return f"is {self.health or self.state}"


@dataclass(frozen=True, slots=True)
class Hosts:
    """State of every host that was ever started, keyed by name."""

    hosts: dict[str, HostReport]


@dataclass(frozen=True, slots=True)
class Exited:
    """The program has ended; *code* is its exit code, or 128 + the number of the signal that ended it."""

    code: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The request was refused."""

    message: str
    kind: Literal["unknown-host", "down", "other"] = "other"
    #: Requested host name, only for ``unknown-host``.
    host: str = ""
    #: Names of the existing hosts, only for ``unknown-host``.
    known: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: Exception) -> "Failed":
        """Return the reply that reports *error*."""
        if isinstance(error, UnknownHostError):
            return cls(str(error), "unknown-host", error.name, tuple(error.known))
        if isinstance(error, LabDownError):
            return cls(str(error), "down")
        return cls(str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}")

    def error(self) -> LabError:
        """Return the exception that the client raises for this reply."""
        if self.kind == "unknown-host":
            return UnknownHostError(self.host, list(self.known))
        return LabDownError(self.message) if self.kind == "down" else LabError(self.message)


Reply = Done | Hosts | Exited | Failed
Message = Request | Reply

# --- encoding ---------------------------------------------------------------------------------------------------------

_CLASSES: dict[str, type[Message]] = {
    each.__name__: each
    for each in (
        *(Up, Status, Act, OpenSocket, OpenNamespaces, Exec, Run, Join, Leave, Signal, Down),
        *(Done, Hosts, Exited, Failed),
    )
}


def encode(message: Message) -> bytes:
    """Encode *message* as JSON."""
    return json.dumps({"type": type(message).__name__, **asdict(message)}).encode()


def decode(data: bytes) -> Message:
    """Decode the message in *data*.

    Raises:
        MessageError: *data* is not a valid message, or belongs to another version.
    """
    try:
        document: dict[str, Any] = json.loads(data)
        kind = _CLASSES[document.pop("type")]
        fields = {name: _tuples(value) for name, value in document.items()}
        if kind is Hosts:
            fields["hosts"] = {name: HostReport(**report) for name, report in document["hosts"].items()}
        return kind(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MessageError(f"expected a message of this version, got {data[:80]!r} ({error!r})") from None


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
