"""Hosts and addresses of the lab, read from docker-compose.yml, the only place that lists them.

Reads only the keys that the command line needs; Compose or `netns_engine.compose` validates the file.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from netns_engine import compose, variables
from netns_engine.compose import COMPOSE_FILE
from runtime.errors import LabError, UnknownHostError
from runtime.subject import Subject

#: Health check of a joined host.
PROBE = ("python", "-m", "hostfiles.probe")


@dataclass(frozen=True, slots=True)
class Host:
    """One service in the compose file."""

    name: str
    #: IPv4 address on the network ``internet``; None without a fixed address.
    address: str | None
    #: Compose profiles; empty if plain ``up`` starts the host.
    profiles: tuple[str, ...]
    #: Whether the host runs once and exits.
    one_shot: bool
    #: Tag of the Docker image.
    image: str = ""
    #: Command of the health check; empty without a health check.
    health_check: tuple[str, ...] = ()
    #: Address and port of the first published port, as ADDRESS:PORT; "" if no port is published.
    published: str = ""


@dataclass(frozen=True, slots=True)
class Topology:
    """All hosts, in the order of the compose file."""

    project: Path
    hosts: tuple[Host, ...]
    #: Compose project name.
    name: str = compose.PROJECT

    @classmethod
    def load(cls, project: Path) -> "Topology":
        """Read the compose file *project*/docker-compose.yml.

        Raises:
            LabError: the file is missing or has no mapping of services.
        """
        path = project / COMPOSE_FILE
        values = variables.read(project)
        document = compose.document(path, values)
        try:
            services: dict[str, Any] = dict(document["services"])
        except (KeyError, TypeError, ValueError):
            raise LabError(f"{path}: expected a mapping 'services', got none") from None
        hosts = tuple(_host(name, service) for name, service in services.items())
        return cls(project, hosts, compose.project_name(document, values))

    def host(self, name: str) -> Host:
        """Return the host called *name*; raise `UnknownHostError` if there is none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise UnknownHostError(name, [h.name for h in self.hosts])

    def joined(self, subjects: Iterable[Subject]) -> "Topology":
        """Return the topology with a host for each of *subjects*."""
        added = (Host(s.host, s.address, ("subject",), one_shot=False, health_check=PROBE) for s in subjects)
        return replace(self, hosts=(*self.hosts, *added))

    @property
    def console_url(self) -> str:
        """URL of the console on this machine."""
        published = {host.name: host.published for host in self.hosts}
        return f"http://{published['console']}/" if published.get("console") else ""

    @property
    def always(self) -> tuple[Host, ...]:
        """The hosts that plain ``up`` keeps running."""
        return tuple(h for h in self.hosts if not h.profiles and not h.one_shot)


def find_project(start: Path | None = None) -> Path:
    """Return the folder that contains the lab's compose file.

    Searched in this order: ``FIRSTBYTE_PROJECT``, *start* and its parents, the checkout, the installed package.

    Raises:
        LabError: no compose file was found.
    """
    if named := os.environ.get("FIRSTBYTE_PROJECT"):
        return Path(named)
    start = start or Path.cwd()
    checkout, packaged = Path(__file__).resolve().parents[2], Path(__file__).resolve().parent / "data"
    for folder in (start, *start.parents, checkout, packaged):
        if (folder / COMPOSE_FILE).is_file() and (folder / "lab" / "etc" / "host.sh").is_file():
            return folder
    raise LabError(
        f"expected {COMPOSE_FILE} of firstbyte in {start} or above, found none: "
        "run this in a checkout, or reinstall firstbyte"
    )


def _host(name: str, service: dict[str, Any]) -> Host:
    networks = service.get("networks") or {}
    internet = networks.get("internet") or {} if isinstance(networks, dict) else {}
    test = (service.get("healthcheck") or {}).get("test") or ()
    return Host(
        name,
        internet.get("ipv4_address"),
        tuple(service.get("profiles") or ()),
        service.get("network_mode") == "none",
        str(service.get("image") or ""),
        tuple(str(word) for word in test[1:]) if list(test[:1]) == ["CMD"] else (),
        ":".join(str(ports[0]).split(":")[:2]) if (ports := service.get("ports")) else "",
    )
