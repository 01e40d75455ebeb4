"""The hosts and their addresses, as docker-compose.yml declares them: there is no second list.

Reads the few keys that matter here (``services.*.networks.internet.ipv4_address``, ``ports``, ``profiles``); checks
nothing else of the file, Compose does that.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from netns_engine.compose import COMPOSE_FILE
from runtime.errors import LabError, UnknownHostError


@dataclass(frozen=True, slots=True)
class Host:
    """One service of the compose file."""

    name: str
    #: IPv4 address on the network ``internet``; None where Compose chooses it, or there is none.
    address: str | None
    #: Compose profiles; empty means that plain ``up`` starts it.
    profiles: tuple[str, ...]
    #: Whether it runs once and exits (it has no health check and is never restarted).
    one_shot: bool


@dataclass(frozen=True, slots=True)
class Topology:
    """The hosts, in the order of the file."""

    project: Path
    hosts: tuple[Host, ...]

    @classmethod
    def load(cls, project: Path) -> "Topology":
        """Read *project*/docker-compose.yml.

        Raises:
            LabError: the file is missing or not what Compose would accept as a mapping of services.
        """
        path = project / COMPOSE_FILE
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            services: dict[str, Any] = document["services"]
        except OSError as error:
            raise LabError(f"{path}: {error.strerror}") from None
        except yaml.YAMLError as error:
            raise LabError(f"{path}: expected YAML, got {error}") from None
        except (KeyError, TypeError):
            raise LabError(f"{path}: expected a mapping 'services', got none") from None
        return cls(project, tuple(_host(name, service) for name, service in services.items()))

    def host(self, name: str) -> Host:
        """Return the host called *name*; raise `UnknownHostError`."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise UnknownHostError(name, [h.name for h in self.hosts])

    @property
    def always(self) -> tuple[Host, ...]:
        """The hosts that plain ``up`` keeps running."""
        return tuple(h for h in self.hosts if not h.profiles and not h.one_shot)


def find_project(start: Path | None = None) -> Path:
    """Return the folder with the lab's compose file: ``FIRSTBYTE_PROJECT``, or upwards from *start*, or the checkout.

    Raises:
        LabError: there is none.
    """
    if named := os.environ.get("FIRSTBYTE_PROJECT"):
        return Path(named)
    start = start or Path.cwd()
    checkout = Path(__file__).resolve().parents[2]
    for folder in (start, *start.parents, checkout):
        if (folder / COMPOSE_FILE).is_file() and (folder / "lab" / "etc" / "host.sh").is_file():
            return folder
    raise LabError(f"expected {COMPOSE_FILE} of firstbyte in {start} or above, found none: run this in a checkout")


def _host(name: str, service: dict[str, Any]) -> Host:
    networks = service.get("networks") or {}
    internet = networks.get("internet") or {} if isinstance(networks, dict) else {}
    return Host(
        name,
        internet.get("ipv4_address"),
        tuple(service.get("profiles") or ()),
        service.get("network_mode") == "none",
    )
