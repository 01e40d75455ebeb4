"""The hosts file (TOML): the hosts to poll, their regions, and what fails without them.

A test checks that the lab's own file agrees with docker-compose.yml.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostfiles.layout import ADMIN_PORT
from hostfiles.toml import TomlFile

_REQUIRED = ("name", "address", "fqdn", "region", "role")
_OPTIONAL = ("without", "admin")


class ConsoleError(Exception):
    """The base of this package's errors."""


class HostsFileError(ConsoleError):
    """The hosts file breaks a rule; the message starts with FILE:LINE."""


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the lab."""

    name: str
    #: IPv4 address inside the lab.
    address: str
    #: Its name in the lab's DNS.
    fqdn: str
    region: str
    #: One of wan, edge, origin, resolver, nameserver, ca, client, console.
    role: str
    #: What does not work while the host is down, as the end of a sentence; may be empty.
    without: str = ""
    #: HOST:PORT of its admin port; by default `ADMIN_PORT` at its address.
    admin: str = ""

    @property
    def url(self) -> str:
        """The URL of its admin port."""
        return f"http://{self.admin or f'{self.address}:{ADMIN_PORT}'}"


@dataclass(frozen=True, slots=True)
class Loss:
    """What does not work while several hosts are down together."""

    of: frozenset[str]
    means: str


@dataclass(frozen=True, slots=True)
class Hosts:
    """What a hosts file declares, in the order of the file."""

    #: Names and descriptions of the regions.
    regions: dict[str, str]
    hosts: tuple[Host, ...]
    losses: tuple[Loss, ...] = ()


def load(path: Path) -> Hosts:
    """Read and check the file at *path*.

    Raises:
        HostsFileError: the file cannot be read, or breaks a rule.
    """
    return _HostsFile.load(path).read()


def parse(text: str, name: str = "hosts.toml") -> Hosts:
    """Check the *text* of a hosts file; messages call it *name*.

    Raises:
        HostsFileError: the text breaks a rule.
    """
    return _HostsFile(text, name).read()


class _HostsFile(TomlFile):
    kind = "hosts file"
    known = ("regions", "host", "loss")
    error = HostsFileError

    def read(self) -> Hosts:
        regions = self.tables.get("regions")
        if not isinstance(regions, dict) or not all(isinstance(title, str) for title in regions.values()):
            self.refuse(1, 'a table [regions] of NAME = "what it is"', regions)
        hosts: dict[str, Host] = {}
        for index, entry in enumerate(self.entries("host")):
            host = self.host(entry, index, regions)
            if host.name in hosts:
                self.refuse(self.line("host", index, "name"), "a unique name", host.name)
            hosts[host.name] = host
        if not hosts:
            self.refuse(self.end, "at least one [[host]]")
        losses = tuple(
            self.loss(entry, self.line("loss", index), hosts) for index, entry in enumerate(self.entries("loss"))
        )
        return Hosts(dict(regions), tuple(hosts.values()), losses)

    def host(self, entry: dict[str, Any], index: int, regions: dict[str, str]) -> Host:
        for key in entry:
            if key not in (*_REQUIRED, *_OPTIONAL):
                self.refuse(self.line("host", index, key), f"one of {', '.join((*_REQUIRED, *_OPTIONAL))}", key)
        for key in _REQUIRED:
            if key not in entry:
                self.refuse(self.line("host", index), f"a {key}")
        for key, value in entry.items():
            if not isinstance(value, str) or (not value and key in _REQUIRED):
                self.refuse(self.line("host", index, key), f"{key} to be text", value)
        if entry["region"] not in regions:
            self.refuse(self.line("host", index, "region"), f"one of the regions {', '.join(regions)}", entry["region"])
        return Host(**entry)

    def loss(self, entry: dict[str, Any], line: int, hosts: dict[str, Host]) -> Loss:
        of, means = entry.get("of"), entry.get("means")
        if entry.keys() != {"of", "means"} or not isinstance(of, list) or not isinstance(means, str) or not of:
            self.refuse(line, 'of = ["host", …] and means = "…"', entry)
        for name in of:
            if name not in hosts:
                self.refuse(line, f"some of the hosts {', '.join(hosts)}", name)
        return Loss(frozenset(of), means)
