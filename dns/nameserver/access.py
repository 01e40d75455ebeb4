"""Access settings of the command line: permissions for transfers and updates, and servers to notify of changes.

    --allow-transfer [ZONE=]KEY, PREFIX or KEY@PREFIX
    --update-policy [ZONE=]KEY[:TYPES[:NAMES]]
    --also-notify [ZONE=]HOST[:PORT][#KEY]

Without ``ZONE=``, a setting applies to every zone. Without any setting, no one may transfer or change a zone.
"""

import argparse
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from dnsmessage import LocalError, Name, rdtypes
from dnsmessage.keyfile import KeyFileError, load_keys
from dnsmessage.tsig import Key
from nameserver.errors import NameServerError

Setting = TypeVar("Setting", "Reader", "Writer", "Target")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SettingError(NameServerError):
    """A setting on the command line is malformed or names an unknown key."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Permission to transfer a zone.

    If *key* is set, requests must be signed with *key*; if *network* is set, requests must come from *network*.
    """

    #: Zone to which the setting applies; None: every zone.
    zone: Name | None
    key: Name | None
    network: Network | None


@dataclass(frozen=True, slots=True)
class Writer:
    """Permission for requests signed with *key* to change records by UPDATE."""

    #: Zone to which the setting applies; None: every zone.
    zone: Name | None
    key: Name
    #: Record types; empty: every type.
    types: frozenset[int] = frozenset()
    #: Patterns as in `_matches`; empty: every name.
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """A server that is notified of changes (RFC 1996)."""

    #: Zone to which the setting applies; None: every zone.
    zone: Name | None
    address: str
    port: int = 53
    #: Name of the key that signs the NOTIFY; None: the NOTIFY is not signed.
    key: Name | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """All settings of a primary server."""

    keys: Mapping[Name, Key] = field(default_factory=dict)
    readers: tuple[Reader, ...] = ()
    writers: tuple[Writer, ...] = ()
    targets: tuple[Target, ...] = ()
    #: Folder for journals and for copies of secondary zones; None: neither is written.
    state: Path | None = None

    def check(self) -> None:
        """Raise `SettingError` if a setting names a key that is not in `keys`."""
        for each in chain[Reader | Writer | Target](self.readers, self.writers, self.targets):
            if each.key is not None and each.key not in self.keys:
                known = ", ".join(map(str, self.keys)) or "none (--tsig-key FILE reads keys)"
                raise SettingError(f"expected a known key, got {each.key}; known: {known}")

    def may_transfer(self, zone: Name, key: Key | None, client: str) -> bool:
        """Return whether *client*, whose request is signed with *key*, may transfer *zone*."""
        address = ipaddress.ip_address(client)
        return any(
            (each.key is None or (key is not None and key.name == each.key))
            and (each.network is None or address in each.network)
            for each in _for(self.readers, zone)
        )

    def is_transferred(self, zone: Name) -> bool:
        """Return whether at least one client is allowed to transfer *zone*."""
        return any(_for(self.readers, zone))

    def may_update(self, zone: Name, key: Key | None, name: Name | None = None, rdtype: int = 0) -> bool:
        """Return whether *key* may change records of type *rdtype* at *name*.

        If *name* is None, return whether *key* may change at least some records of *zone*. The type ANY stands for all
        types.
        """
        return key is not None and any(
            each.key == key.name
            and (
                name is None
                or (
                    (not each.types or rdtype in each.types)
                    and (not each.names or any(_matches(pattern, name) for pattern in each.names))
                )
            )
            for each in _for(self.writers, zone)
        )

    def also_notify(self, zone: Name) -> list[Target]:
        """Return the servers to notify of changes of *zone*, in addition to those in its NS records."""
        return list(_for(self.targets, zone))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command-line options that `from_arguments` reads."""
    for option, parse, form, text in (
        ("--tsig-key", Path, "FILE", "keys as tsig-keygen writes them"),
        ("--allow-transfer", reader, "[ZONE=]WHO", "KEY, PREFIX or KEY@PREFIX that may transfer zones"),
        ("--update-policy", writer, "[ZONE=]KEY[:TYPES[:NAMES]]", "what requests signed with KEY may change"),
        ("--also-notify", target, "[ZONE=]HOST[:PORT][#KEY]", "notified of changes, as are the NS of the zone"),
    ):
        parser.add_argument(
            option, type=_argument(parse), action="append", default=[], metavar=form, help=f"{text}; may be repeated"
        )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="where changes are kept: journals, and copies of secondary zones"
    )


def from_arguments(args: argparse.Namespace) -> Access:
    """Return the settings on the command line, with the keys from the files given by ``--tsig-key``.

    Raises:
        SettingError: a key file is unreadable or malformed, a key is in two files, or a setting names an unknown key.
    """
    keys: dict[Name, Key] = {}
    for path in args.tsig_key:
        try:
            found = load_keys(path)
        except KeyFileError as error:
            raise SettingError(str(error)) from None
        if both := found.keys() & keys.keys():
            raise SettingError(f"{path}: expected key {min(both)} in one file only")
        keys.update(found)
    access = Access(keys, tuple(args.allow_transfer), tuple(args.update_policy), tuple(args.also_notify), args.state)
    access.check()
    return access


def _argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except SettingError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def reader(text: str) -> Reader:
    """Parse ``[ZONE=]KEY``, ``[ZONE=]PREFIX`` or ``[ZONE=]KEY@PREFIX``; raise `SettingError` if *text* is malformed."""
    zone, rest = _zone(text)
    key, at, prefix = rest.rpartition("@")
    network = _network(prefix)
    if network is None and not at:
        return Reader(zone, _name(rest), None)
    if network is None:
        raise SettingError(f"expected an address prefix such as 192.0.2.0/24 after the @, got {text!r}")
    return Reader(zone, _name(key) if at else None, network)


def writer(text: str) -> Writer:
    """Parse ``[ZONE=]KEY[:TYPES[:NAMES]]``; raise `SettingError` if *text* is malformed."""
    zone, rest = _zone(text)
    key, types, names = (*rest.split(":", 2), "", "")[:3]
    try:
        numbers = frozenset() if types in {"", "*"} else frozenset(map(rdtypes.from_text, types.split(",")))
    except LocalError as error:
        raise SettingError(f"{error}, in {text!r}") from None
    patterns = tuple(each.lower() for each in names.split(",") if each)
    return Writer(zone, _name(key), numbers, tuple(p if p.endswith((".", ".*")) else f"{p}." for p in patterns))


def target(text: str) -> Target:
    """Parse ``[ZONE=]HOST[:PORT][#KEY]``; raise `SettingError` if *text* is malformed."""
    zone, rest = _zone(text)
    where, _, key = rest.partition("#")
    host, colon, port = where.partition(":")
    if _network(host) is None or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536)):
        raise SettingError(f"expected [ZONE=]ADDRESS[:PORT][#KEY], got {text!r}")
    return Target(zone, host, int(port) if colon else 53, _name(key) if key else None)


def _for(settings: Iterable[Setting], zone: Name) -> Iterable[Setting]:
    return (each for each in settings if each.zone is None or each.zone == zone)


def _zone(text: str) -> tuple[Name | None, str]:
    zone, equals, rest = text.rpartition("=")
    return (_name(zone) if equals else None), rest


def _name(text: str) -> Name:
    try:
        return Name.from_text(text.removesuffix(".") + ".")
    except LocalError as error:
        raise SettingError(str(error)) from None


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _matches(pattern: str, name: Name) -> bool:
    """Return whether *name* equals *pattern* or matches its wildcard: ``*.example.com.`` or ``_dmarc.*``."""
    text = str(name).lower()
    if pattern.startswith("*."):
        return text.endswith(pattern[1:])
    return text.startswith(pattern[:-1]) if pattern.endswith(".*") else text == pattern
