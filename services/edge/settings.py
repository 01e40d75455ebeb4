"""The settings file of an edge: one TOML file, checked as a whole before any of it is used.

[timeouts]                       # seconds; those of origins may be set per route, too
idle = 75.0

[clients]
max = 2048
per_address = 256                # connections of one client address
trusted = ["198.19.0.0/16"]      # proxies whose X-Forwarded-For is believed; without the key, every client's is
max_body = 10_000_000            # bytes of a request's body

[https]
redirect = true                  # plain HTTP is answered with 308 to https://
hsts = 31536000                  # seconds of Strict-Transport-Security; 0 sends none

[access_log]
sample = 0.01                    # share of requests; those that fail are always logged

[[route]]
prefix = "/"
targets = ["catalog-1.example.com:8443", {address = "http://10.0.0.7:80", weight = 3}]
max_body = 1_000_000
timeouts = {response = 5.0}
pool = {per_target = 32}
health = {path = "/health", interval = 2.0, timeout = 1.0}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, TypeVar

from edge.admission import MAX_CLIENTS
from edge.pool import Limits
from edge.routes import HealthCheck, Route
from edge.targets import parse_target
from edge.timeouts import Timeouts
from hostfiles.toml import TomlFile

#: Time-outs that a route may set for its own origins.
OF_ORIGINS = ("connect", "response", "pool", "send", "send_contended")
#: Bytes of a request's body where nothing says otherwise: nginx's default is 1 MiB, Envoy's none.
MAX_BODY = 1 << 30

S = TypeVar("S", Timeouts, Limits)
Network = IPv4Network | IPv6Network


class SettingsError(Exception):
    """The settings file breaks a rule; the message is FILE:LINE: expected …, got …."""


@dataclass(frozen=True, slots=True)
class Clients:
    """What clients may do."""

    max: int = MAX_CLIENTS
    #: Connections of one address; None without a limit.
    per_address: int | None = None
    #: Proxies whose X-Forwarded-For is believed; None believes every client's.
    trusted: tuple[Network, ...] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All that an operator can set."""

    routes: tuple[Route, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    clients: Clients = field(default_factory=Clients)
    #: Whether plain HTTP is redirected to HTTPS.
    redirect: bool = False
    #: Seconds of Strict-Transport-Security; 0 sends none.
    hsts: int = 0
    #: Share of requests that are logged; None logs none, 0 only those that fail.
    log_sample: float | None = None
    #: Where the file is; None without one.
    path: Path | None = field(default=None, compare=False)


def load(path: Path) -> Settings:
    """Read and check the file at *path*.

    Raises:
        SettingsError: the file cannot be read, or breaks a rule.
    """
    return replace(_SettingsFile.load(path).read(), path=path)


def parse(text: str, name: str = "edge.toml") -> Settings:
    """Check the *text* of a settings file; messages call it *name*.

    Raises:
        SettingsError: the text breaks a rule.
    """
    return _SettingsFile(text, name).read()


class _SettingsFile(TomlFile):
    kind = "settings file"
    known = ("timeouts", "clients", "https", "access_log", "route")
    error = SettingsError

    def read(self) -> Settings:
        timeouts = self.numbers(Timeouts(), self.table("timeouts"), "timeouts")
        clients = self.table("clients", "max", "per_address", "trusted", "max_body")
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
                self.networks(clients.get("trusted")),
            ),
            redirect=redirect,
            hsts=self.whole(https, "hsts", "https", 0, 0, low=0),
            log_sample=self.share(self.table("access_log", "sample")),
        )

    def table(self, name: str, *keys: str) -> dict[str, Any]:
        """Return a table that has no other keys than these; any where none are given."""
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
        """Return *base* with the fields of *table*, each a positive number of the field's type."""
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

    def networks(self, listed: Any) -> tuple[Network, ...] | None:
        if listed is None:
            return None
        line = self.line("clients", key="trusted")
        if not isinstance(listed, list):
            self.refuse(line, "trusted to be a list of networks", listed)
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
            if not isinstance(prefix, str) or not prefix.startswith("/"):
                self.refuse(self.line("route", index, "prefix"), 'a prefix such as "/news"', prefix)
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
        if not isinstance(path, str) or not path.startswith("/") or not path.isascii() or " " in path:
            self.refuse(line, 'a path such as "/health"', path)
        for value in (interval, timeout):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 3600:
                self.refuse(line, "seconds from 0 to 3600", value)
        return HealthCheck(path, float(interval), float(timeout))
