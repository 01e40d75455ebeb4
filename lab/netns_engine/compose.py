"""Parser for docker-compose.yml, limited to a subset of the Compose specification.

Specification: https://github.com/compose-spec/compose-spec.  A key outside the subset is an error that names its line,
because silently ignoring a setting would be worse.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from netns_engine import variables
from netns_engine.errors import LabError

#: Supported service keys, each with a description of its implementation; the README shows this table.
SERVICE_KEYS: Mapping[str, str] = {
    "image": "ignored: the programs of this machine and of this Python environment run",
    "build": "ignored",
    "pull_policy": "ignored",
    "entrypoint": "the first words of the command line; `command` follows",
    "command": "the rest of the command line",
    "user": "the uid, where that user can read the interpreter (see Limits)",
    "environment": "the whole environment, plus HOME and HOSTNAME",
    "volumes": "named volumes are folders in the state folder; other sources are relative to the compose file",
    "tmpfs": "a tmpfs with the given `mode` and `size`",
    "read_only": "everything except volumes and tmpfs is mounted read-only",
    "networks": "`internet` is the lab's network; `published` is ignored",
    "network_mode": "`none`: loopback only",
    "ports": "forwarded from the machine's 127.0.0.1, TCP and UDP",
    "sysctls": "set in the host's network namespace before its device is created",
    "devices": "added to /dev, which otherwise has null, zero, full, random, urandom and tty only",
    "depends_on": "service_started, service_healthy, service_completed_successfully",
    "healthcheck": (
        "`test: [CMD, …]`, run on the host as its user; interval, timeout, retries, start_period, start_interval"
    ),
    "restart": "`no` or `unless-stopped`, with Docker's pauses: 100 ms, doubled up to a minute",
    "profiles": "started on request",
    "mem_limit": "a cgroup, where this user may create one",
    "pids_limit": "a cgroup, where this user may create one",
    "stop_grace_period": "time between SIGTERM and SIGKILL",
    "cap_drop": "`[ALL]`, which always applies here",
    "cap_add": "capabilities of the entry point, which drops them",
    "security_opt": "`no-new-privileges:true`, which always applies here",
    "attach": "ignored: `firstbyte logs` shows the hosts you name",
    "logging": "`max-size` and `max-file` bound each host's log",
}
COMPOSE_FILE = "docker-compose.yml"
TOP_KEYS = ("name", "services", "networks", "volumes")
HEALTH_KEYS = ("test", "interval", "timeout", "retries", "start_period", "start_interval", "disable")
CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")
NETWORK = "internet"
#: Default project name, for a file without ``name:``.
PROJECT = "firstbyte"
#: Environment variable that overrides the project name, as in Compose.
PROJECT_VARIABLE = "COMPOSE_PROJECT_NAME"
_SIZES = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_TIMES = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class ComposeError(LabError):
    """The compose file is invalid or contains a key or value that this runtime does not implement."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(f"{path}:{line}: {problem}")
        self.path, self.line, self.problem = path, line, problem


@dataclass(frozen=True, slots=True)
class Mount:
    """One entry of a service's ``volumes``."""

    #: Volume name, or path relative to the project.
    source: str
    #: Absolute path inside the host.
    target: str
    read_only: bool

    @property
    def is_volume(self) -> bool:
        """Whether the source is a named volume rather than a path."""
        return not self.source.startswith((".", "/"))


@dataclass(frozen=True, slots=True)
class Port:
    """One entry of ``ports``: forwards *address*:*published* on the machine to port *target* on the host."""

    address: str
    published: int
    target: int
    #: ``tcp`` or ``udp``.
    protocol: str


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Health-check command, which exits with 0 if the host is healthy; all times are in seconds."""

    test: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the compose file."""

    name: str
    #: Line number at which the service begins.
    line: int
    argv: tuple[str, ...]
    #: Number of arguments in *argv* that form the entry point; the rest is ``command``, which `run` replaces.
    entrypoint: int
    user: int | None
    environment: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    #: Temporary file systems, as pairs of path and mount options.
    tmpfs: tuple[tuple[str, str], ...]
    read_only: bool
    #: Whether the host is on the lab's network.
    networked: bool
    #: IPv4 address on the lab's network; None for any free address of the dynamic range.
    address: ipaddress.IPv4Address | None
    ports: tuple[Port, ...]
    sysctls: tuple[tuple[str, str], ...]
    devices: tuple[str, ...]
    #: Services that must reach a condition first, as pairs of service name and condition (one of `CONDITIONS`).
    depends_on: tuple[tuple[str, str], ...]
    health: HealthCheck | None
    restart: bool
    profiles: tuple[str, ...]
    #: Maximum memory in bytes; None for no limit.
    memory: int | None
    #: Maximum number of processes; None for no limit.
    pids: int | None
    #: Grace period between SIGTERM and SIGKILL, in seconds.
    grace: float
    #: Linux capabilities that the entry point keeps, in lower case.
    capabilities: tuple[str, ...]
    #: Maximum size of one log file in bytes.
    log_size: int
    #: Maximum number of log files.
    log_files: int


@dataclass(frozen=True, slots=True)
class Compose:
    """Parsed contents of a compose file."""

    #: Project name.
    name: str
    services: tuple[Service, ...]
    volumes: tuple[str, ...]
    #: IPv4 subnet of the lab's network.
    subnet: ipaddress.IPv4Network
    #: Part of the subnet for hosts without a fixed address.
    dynamic: ipaddress.IPv4Network

    def service(self, name: str) -> Service:
        """Return the service called *name*, which must exist."""
        return next(s for s in self.services if s.name == name)

    def addresses(self) -> set[ipaddress.IPv4Address]:
        """Return all addresses that the compose file assigns to services, by `networks` or the variable HOST_ALSO."""
        texts = (dict(each.environment).get("HOST_ALSO") for each in self.services)
        found = {each.address for each in self.services if each.address is not None}
        return found | {ipaddress.IPv4Address(text) for text in texts if text}

    def chosen(self, profiles: tuple[str, ...]) -> tuple[Service, ...]:
        """Return the services without a profile and those with at least one of *profiles*."""
        return tuple(s for s in self.services if not s.profiles or set(s.profiles) & set(profiles))


def load(path: Path) -> Compose:
    """Parse and validate the compose file at *path*, with variables from its folder and the environment.

    Raises:
        ComposeError: this runtime does not support a key or value; the error has the line number.
        LabError: the file or its variables cannot be read.
    """
    return _File(path, variables.read(path.parent)).compose()


def document(path: Path, values: Mapping[str, str] | None = None) -> Any:
    """Return the compose file as plain Python values, without checking its keys.

    Args:
        path: the compose file.
        values: variables to use instead of those from the file's folder and the environment.

    Raises:
        ComposeError: the file is not valid YAML, or a variable has no value.
        LabError: the file or its variables cannot be read.
    """
    return _File(path, variables.read(path.parent) if values is None else values).values()


def project_name(file: Mapping[str, Any], values: Mapping[str, str]) -> str:
    """Return the project name for the compose file *file*, which the variables *values* may override."""
    return str(values.get(PROJECT_VARIABLE) or file.get("name") or PROJECT)


class _File:
    """YAML node tree of one compose file, with variables substituted; nodes keep their line numbers."""

    def __init__(self, path: Path, values: Mapping[str, str]) -> None:
        self._path, self._values = path, values
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise LabError(f"{path}: {error.strerror}") from None
        self._loader = yaml.SafeLoader(text)
        try:
            root = self._loader.get_single_node()
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ComposeError(path, line, f"expected YAML, got: {error.problem}") from None
        if root is None:
            raise ComposeError(path, 1, "expected a mapping 'services', got an empty file")
        self._root: yaml.Node = root
        self._fill(root, set())

    def _fill(self, node: yaml.Node, seen: set[int]) -> None:
        """Substitute variables in all scalars below *node*; *seen* prevents processing an anchored node twice."""
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            if "$" in node.value:
                try:
                    node.value = variables.fill(node.value, self._values)
                except ValueError as error:
                    raise ComposeError(self._path, node.start_mark.line + 1, str(error)) from None
                if node.style is None:  # plain (unquoted) scalar: resolve the type again, from the substituted value
                    node.tag = self._loader.resolve(  # type: ignore[no-untyped-call]  # PyYAML has no type hints
                        yaml.ScalarNode, node.value, (True, False)
                    )
            return
        for child in node.value:
            self._fill(child[1] if isinstance(node, yaml.MappingNode) else child, seen)

    def values(self) -> Any:
        return self._value(self._root)

    def compose(self) -> Compose:
        top = self._mapping(self._root, TOP_KEYS, "the file", extensions=True)
        if "services" not in top:
            raise ComposeError(self._path, 1, "expected a mapping 'services', got none")
        volumes = tuple(self._mapping(top["volumes"], None, "volumes")) if "volumes" in top else ()
        services = tuple(
            self._service(name, node, volumes)
            for name, node in self._mapping(top["services"], None, "services").items()
        )
        names = {s.name for s in services}
        for service in services:
            for other, _ in service.depends_on:
                if other not in names:
                    raise ComposeError(
                        self._path, service.line, f"{service.name} depends on {other!r}: no such service"
                    )
        name = project_name({"name": self._value(top.get("name"))}, self._values)
        return Compose(name, services, volumes, *self._network(top.get("networks")))

    def _network(self, node: yaml.Node | None) -> tuple[ipaddress.IPv4Network, ipaddress.IPv4Network]:
        try:
            document = self._value(node)[NETWORK]["ipam"]["config"][0] if node is not None else {}
            subnet = ipaddress.IPv4Network(document["subnet"])
            return subnet, ipaddress.IPv4Network(document.get("ip_range", document["subnet"]))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            line = node.start_mark.line + 1 if node is not None else 1
            problem = f"expected networks.{NETWORK}.ipam.config with an IPv4 subnet, got: {error!r}"
            raise ComposeError(self._path, line, problem) from None

    def _service(self, name: str, node: yaml.Node, volumes: tuple[str, ...]) -> Service:
        keys = self._mapping(node, tuple(SERVICE_KEYS), name)

        def get(key: str, default: Any = None) -> Any:
            return self._value(keys[key]) if key in keys and self._value(keys[key]) is not None else default

        def refuse(key: str, expected: str) -> ComposeError:
            return self._refuse(keys[key], f"{name}.{key}", expected)

        def words(key: str) -> tuple[str, ...]:
            value = get(key, [])
            if not isinstance(value, list):
                raise refuse(key, "a list of words")
            return tuple(str(word) for word in value)

        def pairs(key: str) -> tuple[tuple[str, str], ...]:
            value = get(key, {})
            if not isinstance(value, dict) or not all(isinstance(v, (str, int, float)) for v in value.values()):
                raise refuse(key, "a mapping of names to values")
            return tuple((str(k), str(v)) for k, v in value.items())

        for key, only in (
            ("network_mode", "none"),
            ("cap_drop", ["ALL"]),
            ("security_opt", ["no-new-privileges:true"]),
        ):
            if key in keys and get(key) != only:
                raise refuse(key, f"{only!r}")
        restart = get("restart", "no")
        if restart not in {"no", "unless-stopped"}:
            raise refuse("restart", "'no' or 'unless-stopped'")
        networks = get("networks", {})
        if not isinstance(networks, dict) or set(networks) - {NETWORK, "published"}:
            raise refuse("networks", f"a mapping with {NETWORK!r} and 'published' only")
        logging = get("logging", {}).get("options", {})
        entrypoint = words("entrypoint")
        return Service(
            name=name,
            line=node.start_mark.line + 1,
            argv=(*entrypoint, *words("command")),
            entrypoint=len(entrypoint),
            user=self._user(keys["user"], name) if "user" in keys else None,
            environment=pairs("environment"),
            mounts=self._mounts(keys["volumes"], name, volumes) if "volumes" in keys else (),
            tmpfs=tuple((path, options) for path, _, options in (each.partition(":") for each in words("tmpfs"))),
            read_only=get("read_only", False) is True,
            networked=NETWORK in networks,
            address=self._address(keys["networks"], name, networks) if NETWORK in networks else None,
            ports=tuple(self._port(keys["ports"], name, each) for each in words("ports")),
            sysctls=pairs("sysctls"),
            devices=words("devices"),
            depends_on=self._depends(keys["depends_on"], name) if "depends_on" in keys else (),
            health=self._health(keys["healthcheck"], name) if "healthcheck" in keys else None,
            restart=restart == "unless-stopped",
            profiles=words("profiles"),
            memory=self._size(keys["mem_limit"], name) if "mem_limit" in keys else None,
            pids=int(get("pids_limit")) if "pids_limit" in keys else None,
            grace=self._seconds(keys["stop_grace_period"], name) if "stop_grace_period" in keys else 10.0,
            capabilities=tuple(word.lower() for word in words("cap_add")),
            log_size=_size(logging.get("max-size", "10m")) or 10 * 2**20,
            log_files=int(logging.get("max-file", 1)),
        )

    def _mounts(self, node: yaml.Node, name: str, volumes: tuple[str, ...]) -> tuple[Mount, ...]:
        found = []
        for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            text = self._value(each)
            source, _, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
            target, _, mode = rest.partition(":")
            mount = Mount(source, target, mode == "ro")
            if not source or not target.startswith("/") or mode not in {"", "ro", "rw"}:
                raise self._refuse(each, f"{name}.volumes", "SOURCE:TARGET or SOURCE:TARGET:ro")
            if mount.is_volume and source not in volumes:
                raise self._refuse(each, f"{name}.volumes", f"one of the volumes {', '.join(volumes)}")
            if not target.startswith("/srv/") and target != "/etc/resolv.conf":
                raise self._refuse(each, f"{name}.volumes", "a target below /srv, or /etc/resolv.conf")
            found.append(mount)
        return tuple(found)

    def _health(self, node: yaml.Node, name: str) -> HealthCheck | None:
        keys = self._mapping(node, HEALTH_KEYS, f"{name}.healthcheck")
        values = {key: self._value(each) for key, each in keys.items()}
        if values.get("disable"):
            return None
        test = values.get("test")
        if not isinstance(test, list) or test[:1] != ["CMD"] or len(test) < 2:
            raise self._refuse(keys.get("test", node), f"{name}.healthcheck.test", "[CMD, program, …]")
        times = {
            key: self._seconds(keys[key], f"{name}.healthcheck")
            for key in ("interval", "timeout", "start_period", "start_interval")
            if key in keys
        }
        return HealthCheck(tuple(str(word) for word in test[1:]), retries=int(values.get("retries", 3)), **times)

    def _depends(self, node: yaml.Node, name: str) -> tuple[tuple[str, str], ...]:
        found = []
        for other, each in self._mapping(node, None, f"{name}.depends_on").items():
            condition = self._value(self._mapping(each, ("condition",), f"{name}.depends_on.{other}").get("condition"))
            if condition not in CONDITIONS:
                raise self._refuse(each, f"{name}.depends_on.{other}.condition", f"one of {', '.join(CONDITIONS)}")
            found.append((other, str(condition)))
        return tuple(found)

    def _port(self, node: yaml.Node, name: str, text: str) -> Port:
        match = re.fullmatch(r"(127\.\d+\.\d+\.\d+):(\d{1,5}):(\d{1,5})(?:/(tcp|udp))?", text)
        if match is None:
            raise self._refuse(node, f"{name}.ports", f"127.x.x.x:PORT:PORT[/tcp|/udp], not {text!r}")
        return Port(match[1], int(match[2]), int(match[3]), match[4] or "tcp")

    def _address(self, node: yaml.Node, name: str, networks: dict[str, Any]) -> ipaddress.IPv4Address | None:
        text = (networks[NETWORK] or {}).get("ipv4_address")
        try:
            return None if text is None else ipaddress.IPv4Address(text)
        except ValueError:
            raise self._refuse(node, f"{name}.networks.{NETWORK}.ipv4_address", "an IPv4 address") from None

    def _user(self, node: yaml.Node, name: str) -> int:
        match = re.fullmatch(r"(\d+)(?::\d+)?", str(self._value(node)))
        if match is None:
            raise self._refuse(node, f"{name}.user", "UID or UID:GID in numbers")
        return int(match[1])

    def _size(self, node: yaml.Node, name: str) -> int:
        size = _size(self._value(node))
        if size is None:
            raise self._refuse(node, f"{name}.mem_limit", "a size such as 128m")
        return size

    def _seconds(self, node: yaml.Node, name: str) -> float:
        text = str(self._value(node))
        if not re.fullmatch(r"(\d+(ms|s|m|h))+", text):
            raise self._refuse(node, name, "a duration such as 30s or 1m30s")
        return sum(int(number) * _TIMES[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h)", text))

    # --- YAML nodes ---------------------------------------------------------------------------------------------------

    def _mapping(
        self, node: yaml.Node, allowed: tuple[str, ...] | None, where: str, *, extensions: bool = False
    ) -> dict[str, yaml.Node]:
        """Return the entries of a mapping with merge keys (``<<``) resolved; reject keys that are not in *allowed*."""
        if isinstance(node, yaml.ScalarNode) and node.value in {"", "~", "null"}:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise self._refuse(node, where, "a mapping")
        self._loader.flatten_mapping(node)
        found = {}
        for key, value in node.value:
            if allowed is not None and key.value not in allowed and not (extensions and key.value.startswith("x-")):
                problem = f"{where}: the runtime without Docker does not know the key {key.value!r}: expected one of "
                raise ComposeError(self._path, key.start_mark.line + 1, problem + ", ".join(allowed))
            if not key.value.startswith("x-"):
                found[str(key.value)] = value
        return found

    def _value(self, node: yaml.Node | None) -> Any:
        if node is None:
            return None
        return self._loader.construct_object(node, deep=True)

    def _refuse(self, node: yaml.Node, where: str, expected: str) -> ComposeError:
        got = self._loader.construct_object(node, deep=True)
        shown = str(got) if len(str(got)) <= 60 else f"{str(got)[:57]}…"
        return ComposeError(self._path, node.start_mark.line + 1, f"{where}: expected {expected}, got {shown!r}")


def _size(value: object) -> int | None:
    match = re.fullmatch(r"(\d+)([bkmg]?)b?", str(value).lower())
    return None if match is None else int(match[1]) * _SIZES[match[2]]
