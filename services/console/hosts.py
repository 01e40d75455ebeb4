"""Parser for the hosts file (TOML): the hosts to poll, their regions, and the consequences of their failure.

A test checks that the lab's hosts file agrees with docker-compose.yml.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostfiles.layout import ADMIN_PORT
from hostfiles.toml import TomlFile

_REQUIRED = ("name", "address", "fqdn", "region", "role")
_OPTIONAL = ("without", "admin")


class ConsoleError(Exception):
    """Base class of the console's exceptions."""


class HostsFileError(ConsoleError):
    """The hosts file is invalid; the message starts with FILE:LINE."""


@dataclass(frozen=True, slots=True)
class Host:
    """One host of the lab."""

    name: str
    #: IPv4 address inside the lab.
    address: str
    #: Fully qualified domain name in the lab's DNS.
    fqdn: str
    region: str
    #: Role: wan, edge, origin, resolver, nameserver, ca, client or console.
    role: str
    #: Consequence of the host's failure, worded as the end of an alarm's message; may be empty.
    without: str = ""
    #: HOST:PORT of the admin port; the default is `ADMIN_PORT` at the host's address.
    admin: str = ""

    @property
    def url(self) -> str:
        """The base URL of the host's admin port."""
        return f"http://{self.admin or f'{self.address}:{ADMIN_PORT}'}"


@dataclass(frozen=True, slots=True)
class Loss:
    """The consequence of several hosts being down at the same time."""

    of: frozenset[str]
    means: str


@dataclass(frozen=True, slots=True)
class Hosts:
    """The parsed content of a hosts file, in file order."""

    #: Descriptions of the regions, keyed by region name.
    regions: dict[str, str]
    hosts: tuple[Host, ...]
    losses: tuple[Loss, ...] = ()


def load(path: Path) -> Hosts:
    """Read and validate the hosts file at *path*.

    Raises:
        HostsFileError: the file cannot be read or is invalid.
    """
    return _HostsFile.load(path).read()


def parse(text: str, name: str = "hosts.toml") -> Hosts:
    """Parse and validate the *text* of a hosts file; error messages refer to it as *name*.

    Raises:
        HostsFileError: the text is not a valid hosts file.
    """
    return _HostsFile(text, name).read()


def joined(entry: object, declared: Hosts) -> Host | None:
    """Return the host described by *entry*, the JSON body of a request; None if *entry* is invalid or not new."""
    keys = {"name", "address", "fqdn", "region"}
    if not isinstance(entry, dict) or entry.keys() != keys or not all(isinstance(v, str) for v in entry.values()):
        return None
    if entry["region"] not in declared.regions or entry["name"] in {host.name for host in declared.hosts}:
        return None
    return Host(**entry, role="subject")


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
