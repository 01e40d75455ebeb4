"""The hosts file: who is asked, where they stand, and what is lost without them (TOML).

Reads the file and checks it against itself; that it agrees with docker-compose.yml is held by a test.
"""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

#: Where every host serves /health, /metrics and /admin.
ADMIN_PORT = 9900
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
    #: What it is: wan, edge, origin, resolver, nameserver, ca, client, console.
    role: str
    #: What no longer works while it is down, as the end of a sentence; may be empty.
    without: str = ""
    #: HOST:PORT of its admin port.
    admin: str = ""

    @property
    def url(self) -> str:
        """Where its admin port is."""
        return f"http://{self.admin or f'{self.address}:{ADMIN_PORT}'}"


@dataclass(frozen=True, slots=True)
class Loss:
    """What several hosts mean together."""

    of: frozenset[str]
    means: str


@dataclass(frozen=True, slots=True)
class Hosts:
    """What a hosts file declares, in its order."""

    #: Region names with what they are, in words.
    regions: dict[str, str]
    hosts: tuple[Host, ...]
    losses: tuple[Loss, ...] = ()


def load(path: Path) -> Hosts:
    """Read and check the file at *path*.

    Raises:
        HostsFileError: it can not be read, or breaks a rule.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise HostsFileError(f"{path}: expected a readable hosts file, got: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise HostsFileError(f"{path}: expected UTF-8, got {error.reason} at byte {error.start}") from None
    return parse(text, str(path))


def parse(text: str, name: str = "hosts.toml") -> Hosts:
    """Check the *text* of a hosts file; *name* stands in messages.

    Raises:
        HostsFileError: the text breaks a rule.
    """
    return _Reader(text, name).read()


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.lines = text.splitlines()

    def read(self) -> Hosts:
        try:
            tables = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            match = re.search(r"line (\d+)", str(error))
            line = int(match[1]) if match else max(1, len(self.lines))
            raise HostsFileError(f"{self.name}:{line}: expected TOML, got: {error}") from None
        for key in tables:
            if key not in {"regions", "host", "loss"}:
                self.refuse(self.mention(key), "tables regions, host and loss", key)
        regions = tables.get("regions")
        if not isinstance(regions, dict) or not all(isinstance(title, str) for title in regions.values()):
            self.refuse(1, 'a table [regions] of NAME = "what it is"', regions)
        hosts: dict[str, Host] = {}
        for index, entry in enumerate(self.entries(tables, "host")):
            line = self.line("host", index)
            host = self.host(entry, line, regions)
            if host.name in hosts:
                self.refuse(line, "a name of its own", host.name)
            hosts[host.name] = host
        if not hosts:
            self.refuse(max(1, len(self.lines)), "at least one [[host]]", None)
        losses = tuple(
            self.loss(entry, self.line("loss", index), hosts)
            for index, entry in enumerate(self.entries(tables, "loss"))
        )
        return Hosts(dict(regions), tuple(hosts.values()), losses)

    def entries(self, tables: dict[str, Any], key: str) -> list[Any]:
        entries = tables.get(key, [])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self.refuse(self.mention(key), f"[[{key}]] tables", entries)
        return entries

    def host(self, entry: dict[str, Any], line: int, regions: dict[str, str]) -> Host:
        for key in entry:
            if key not in (*_REQUIRED, *_OPTIONAL):
                self.refuse(line, f"one of {', '.join((*_REQUIRED, *_OPTIONAL))}", key)
        for key in _REQUIRED:
            if key not in entry:
                self.refuse(line, f"a {key}", None)
        for key, value in entry.items():
            if not isinstance(value, str) or (not value and key in _REQUIRED):
                self.refuse(line, f"{key} to be text", value)
        if entry["region"] not in regions:
            self.refuse(line, f"a region among {', '.join(regions)}", entry["region"])
        return Host(**entry)

    def loss(self, entry: dict[str, Any], line: int, hosts: dict[str, Host]) -> Loss:
        of, means = entry.get("of"), entry.get("means")
        if entry.keys() != {"of", "means"} or not isinstance(of, list) or not isinstance(means, str) or not of:
            self.refuse(line, 'of = ["host", …] and means = "…"', entry)
        for name in of:
            if name not in hosts:
                self.refuse(line, f"hosts among {', '.join(hosts)}", name)
        return Loss(frozenset(of), means)

    def line(self, table: str, index: int) -> int:
        starts = [number for number, line in enumerate(self.lines, 1) if line.strip().startswith(f"[[{table}]]")]
        return starts[index] if index < len(starts) else max(1, len(self.lines))

    def mention(self, key: str) -> int:
        """Return the first line on which *key* stands as a table or before an equals sign."""
        pattern = re.compile(rf"\s*(\[+\s*{re.escape(key)}\b|{re.escape(key)}\s*=)")
        return next((number for number, line in enumerate(self.lines, 1) if pattern.match(line)), 1)

    def refuse(self, line: int, expected: str, got: object) -> NoReturn:
        raise HostsFileError(f"{self.name}:{line}: expected {expected}, got {got!r}")
