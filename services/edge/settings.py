"""Settings file of an edge server (TOML); the whole file is validated before any setting is applied.

[timeouts]                       # seconds; those for origins may also be set per route
idle = 75.0

[clients]
max = 2048                       # client connections
per_address = 256                # connections per client address
trusted = ["198.19.0.0/16"]      # proxies whose X-Forwarded-For is trusted; without this key, all clients are trusted
proxy_protocol = ["10.0.0.0/24"] # load balancers whose connections begin with a PROXY header
max_body = 10_000_000            # size of a request body in bytes

[https]
redirect = true                  # redirect plain HTTP to https:// with status 308
hsts = 31536000                  # max-age of Strict-Transport-Security in seconds; 0 omits the field

[access_log]
sample = 0.01                    # share of successful requests that are logged; failed requests are always logged

[[route]]
prefix = "/"
targets = ["catalog-1.example.com:8443", {address = "http://10.0.0.7:80", weight = 3}]
max_body = 1_000_000
timeouts = {response = 5.0}
pool = {per_target = 32}
health = {path = "/health", interval = 2.0, timeout = 1.0}
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeVar

from edge.admission import MAX_CLIENTS
from edge.pool import Limits
from edge.routes import MATCHABLE, HealthCheck, Route, matchable
from edge.targets import parse_target
from edge.timeouts import Timeouts
from hostfiles.toml import TomlFile

#: Time-outs that may also be set per route, because they apply to the route's origins.
OF_ORIGINS = ("connect", "response", "pool", "send", "send_contended")
#: Default maximum size of a request body, in bytes. nginx's default is 1 MiB; Envoy has no limit.
MAX_BODY = 1 << 30
#: Request target of a health check.
_TARGET = re.compile(r"/[!-~]*")

S = TypeVar("S", Timeouts, Limits)
Network = IPv4Network | IPv6Network


class SettingsError(Exception):
    """Error in the settings file; the message has the form ``FILE:LINE: expected …, got …``."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Limits on client connections, and the proxies whose X-Forwarded-For is trusted."""

    max: int = MAX_CLIENTS
    #: Maximum number of connections from one address; None for no limit.
    per_address: int | None = None
    #: Networks of the proxies whose X-Forwarded-For is trusted; None trusts all clients.
    trusted: tuple[Network, ...] | None = None
    #: Networks of the load balancers whose connections begin with a PROXY protocol header.
    proxy_protocol: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings that an operator can change."""

    routes: tuple[Route, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    clients: Clients = field(default_factory=Clients)
    #: Whether plain HTTP is redirected to HTTPS.
    redirect: bool = False
    #: max-age of Strict-Transport-Security in seconds; 0 omits the field.
    hsts: int = 0
    #: Share of successful requests that are logged, 0 to 1; failed requests are always logged. None turns the access
    #: log off.
    log_sample: float | None = None
    #: Path of the settings file; None without a file.
    path: Path | None = field(default=None, compare=False)


def load(path: Path) -> Settings:
    """Load and validate the settings file at *path*.

    Raises:
        SettingsError: the file cannot be read or is invalid.
    """
    return replace(_SettingsFile.load(path).read(), path=path)


def parse(text: str, name: str = "edge.toml") -> Settings:
    """Parse and validate the *text* of a settings file; *name* is the file name in error messages.

    Raises:
        SettingsError: *text* is invalid.
    """
    return _SettingsFile(text, name).read()


class _SettingsFile(TomlFile):
    kind = "settings file"
    known = ("timeouts", "clients", "https", "access_log", "route")
    error = SettingsError

    def read(self) -> Settings:
        timeouts = self.numbers(Timeouts(), self.table("timeouts"), "timeouts")
        clients = self.table("clients", "max", "per_address", "trusted", "proxy_protocol", "max_body")
        max_body = self.whole(clients, "max_body", "clients", 0, MAX_BODY, low=0)
        https = self.table("https", "redirect", "hsts")
        redirect = https.get("redirect", False)
        if not isinstance(redirect, bool):
            self.refuse(self.line("https", key="redirect"), "redirect to be true or false", redirect)
        return Settings(
            routes=self.routes(timeouts, max_body),
            timeouts=timeouts,
            clients=Clients(
                self.whole(clients, "max", "clients", 0, MAX_CLIENTS),
                self.whole(clients, "per_address", "clients", 0, None),
                self.networks(clients, "trusted"),
                self.networks(clients, "proxy_protocol") or (),
            ),
            redirect=redirect,
            hsts=self.whole(https, "hsts", "https", 0, 0, low=0),
            log_sample=self.share(self.table("access_log", "sample")),
        )

    def table(self, name: str, *keys: str) -> dict[str, Any]:
        """Return a table after checking that all its keys are among *keys*; without *keys*, all keys are allowed."""
        table = self.tables.get(name, {})
        if not isinstance(table, dict):
            self.refuse(self.line(name), f"a table [{name}]", table)
        self.only(table, keys, name, 0)
        return table

    def only(self, table: Mapping[str, Any], keys: Sequence[str], name: str, index: int) -> None:
        for key in table:
            if keys and key not in keys:
                self.refuse(self.line(name, index, key), f"one of {', '.join(keys)}", key)

    def whole(self, table: Mapping[str, Any], key: str, name: str, index: int, default: Any, low: int = 1) -> Any:
        value = table.get(key, default)
        if value is not default and (not isinstance(value, int) or isinstance(value, bool) or value < low):
            self.refuse(self.line(name, index, key), f"{key} to be a whole number of at least {low}", value)
        return value

    def share(self, table: Mapping[str, Any]) -> float | None:
        value = table.get("sample")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1):
            self.refuse(self.line("access_log", key="sample"), "sample to be a share from 0 to 1", value)
        return value

    def numbers(self, base: S, table: Any, name: str, index: int = 0, allowed: Sequence[str] = ()) -> S:
        """Return *base* updated from *table*, whose values must be positive numbers of the field's type."""
        key = "" if name != "route" else "timeouts" if isinstance(base, Timeouts) else "pool"
        if not isinstance(table, dict):
            self.refuse(self.line(name, index, key), f"a table of {key or name}", table)
        names = allowed or [each.name for each in fields(base)]
        changed = {}
        for field_name, value in table.items():
            line = self.line(name, index, key or field_name)
            if field_name not in names:
                self.refuse(line, f"one of {', '.join(names)}", field_name)
            wanted = type(getattr(base, field_name))
            fits = isinstance(value, int | float if wanted is float else int) and not isinstance(value, bool)
            if not fits or not 0 < value < 1e9:
                number = "number" if wanted is float else "whole number"
                self.refuse(line, f"{field_name} to be a positive {number}", value)
            changed[field_name] = wanted(value)
        return replace(base, **changed)

    def networks(self, table: Mapping[str, Any], key: str) -> tuple[Network, ...] | None:
        listed = table.get(key)
        if listed is None:
            return None
        line = self.line("clients", key=key)
        if not isinstance(listed, list):
            self.refuse(line, f"{key} to be a list of networks", listed)
        networks = []
        for each in listed:
            try:
                networks.append(ip_network(each))
            except ValueError:
                self.refuse(line, 'networks such as "198.19.0.0/16"', each)
        return tuple(networks)

    def routes(self, timeouts: Timeouts, max_body: int) -> tuple[Route, ...]:
        routes: list[Route] = []
        for index, entry in enumerate(self.entries("route")):
            self.only(entry, ("prefix", "targets", "max_body", "timeouts", "pool", "health"), "route", index)
            prefix = entry.get("prefix")
            if not isinstance(prefix, str) or not matchable(prefix):
                self.refuse(self.line("route", index, "prefix"), MATCHABLE, prefix)
            if any(route.prefix == prefix for route in routes):
                self.refuse(self.line("route", index, "prefix"), "each prefix once", prefix)
            targets, weights = self.targets(entry.get("targets"), index)
            routes.append(
                Route(
                    prefix,
                    targets,
                    weights,
                    self.numbers(timeouts, entry.get("timeouts", {}), "route", index, OF_ORIGINS),
                    self.numbers(Limits(), entry.get("pool", {}), "route", index),
                    self.whole(entry, "max_body", "route", index, max_body, low=0),
                    self.health(entry.get("health"), index),
                )
            )
        return tuple(routes)

    def targets(self, listed: Any, index: int) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        line = self.line("route", index, "targets")
        if not isinstance(listed, list) or not listed:
            self.refuse(line, 'targets = ["HOST:PORT", …]', listed)
        targets, weights = [], []
        for each in listed:
            entry = {"address": each} if isinstance(each, str) else each
            if not isinstance(entry, dict) or set(entry) - {"address", "weight"}:
                self.refuse(line, '"HOST:PORT" or {address = "HOST:PORT", weight = N}', each)
            weight = entry.get("weight", 1)
            if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= 1000:
                self.refuse(line, "a weight from 1 to 1000", weight)
            try:
                targets.append(parse_target(str(entry.get("address"))))
            except ValueError as error:
                self.refuse(line, str(error).removeprefix("expected ").partition(", got")[0], entry.get("address"))
            weights.append(weight)
        if len(set(targets)) < len(targets):
            self.refuse(line, "each target once", listed)
        return tuple(targets), tuple(weights)

    def health(self, entry: Any, index: int) -> HealthCheck | None:
        if entry is None:
            return None
        line = self.line("route", index, "health")
        if not isinstance(entry, dict) or set(entry) - {"path", "interval", "timeout"}:
            self.refuse(line, "health = {path = …, interval = …, timeout = …}", entry)
        path, interval, timeout = entry.get("path", "/"), entry.get("interval", 5.0), entry.get("timeout", 2.0)
        if not isinstance(path, str) or not _TARGET.fullmatch(path):
            self.refuse(line, 'a path such as "/health", without spaces, control characters and non-ASCII ones', path)
        for value in (interval, timeout):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 3600:
                self.refuse(line, "seconds from 0 to 3600", value)
        return HealthCheck(path, float(interval), float(timeout))
