"""``firstbyte dns``: change and show records and zones of the lab's name servers, and follow the query log."""

import argparse
import contextlib
import json
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlencode

from dnsmessage import LocalError, Name, NameSyntaxError, rdata, rdtypes
from firstbyte import terminal, where
from firstbyte.where import Way
from hostfiles.layout import HOSTS_FILE
from runtime import InsideLab, LabDownError, LabError, RefusedError, UnknownHostError, find_project

#: Interval between requests for the secondaries' serial numbers (POLL) and for new queries (FOLLOW), in seconds.
POLL, FOLLOW = 0.1, 0.5
#: Time-out of a request for a name server's zones, in seconds; short, because a name server may be paused.
TIMEOUT = 3.0
#: Maximum number of queries that `dns log` reads from a server per request.
BATCH = 500
#: Number greater than every query number; a request for queries from this number on returns only the next number.
NEWEST = 2**62


#: Arguments of `dns set` and `dns delete` for use by another command: wait for the secondaries, but print nothing.
_QUIETLY: dict[str, Any] = {"zone": None, "wait": 10.0, "json": False, "quiet": True}


class NotPropagatedError(LabError):
    """A secondary did not get the new serial number in time."""

    exit_code = 1


class UnknownZoneError(RefusedError):
    """No name server of the lab serves the zone, or a zone that contains the name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"expected a name in one of the zones {', '.join(known)}; got {name!r}")
        self.name, self.known = name, known


@dataclass(frozen=True, slots=True)
class Zones:
    """The zones of every name server, as reported by the servers."""

    #: Response to ``GET /admin/zones``, keyed by host.
    by_host: dict[str, list[dict[str, Any]]]
    #: Error messages of the hosts that did not respond, keyed by host.
    silent: dict[str, str]

    @property
    def names(self) -> list[str]:
        """The names of all zones."""
        return sorted({each["zone"] for zones in self.by_host.values() for each in zones})

    def zone_of(self, name: str) -> str:
        """Return the closest enclosing zone of *name* (with the final dot).

        The root zone is returned only for the root and top-level names, because deeper names without a zone of their
        own are misspelt or outside the lab.

        Raises:
            UnknownZoneError: the lab serves no zone for *name*.
        """
        wire = Name.from_text(name)
        found = [zone for zone in self.names if zone != "." and wire.is_below(Name.from_text(zone))]
        if not found and "." in self.names and len(wire.labels) < 2:
            return "."
        if not found:
            raise UnknownZoneError(name, self.names)
        return max(found, key=len)

    def of(self, zone: str) -> dict[str, dict[str, Any]]:
        """Return the entry for *zone* from each of its servers, keyed by host, primaries first."""
        every = [(host, each) for host, zones in self.by_host.items() for each in zones if each["zone"] == zone]
        return dict(sorted(every, key=lambda pair: "secondary" in pair[1]))

    def primaries(self, zone: str) -> list[str]:
        """Return the primaries of *zone*, which accept changes.

        Raises:
            LabDownError: no primary responds.
        """
        found = [host for host, each in self.of(zone).items() if "secondary" not in each]
        if not found:
            silent = "; ".join(f"{host}: {why}" for host, why in self.silent.items())
            raise LabDownError(f"no primary of {zone} answers ({silent or 'there is none'})")
        return found


def dns(args: argparse.Namespace) -> int:
    """Run a subcommand of ``firstbyte dns``; return the exit code."""
    commands: dict[str, Callable[[Way, argparse.Namespace], int]] = {
        "set": _set, "delete": _delete, "show": _show, "zone": _zone, "log": _log,
    }  # fmt: skip
    with where.lab() as lab:
        return commands[args.action](lab, args)


def name_servers(role: str = "nameserver") -> dict[str, str]:
    """Return the domain names of all hosts with *role*, by name of the host; by default, authoritative name servers."""
    path = HOSTS_FILE if InsideLab.is_here() else find_project() / "lab/etc/hosts.toml"
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    return {host["name"]: f"{host['fqdn']}." for host in document["host"] if host["role"] == role}


# --- changes by other commands ----------------------------------------------------------------------------------------


def exists(lab: Way, name: str) -> bool:
    """Return whether the lab has records at *name*; raise `UnknownZoneError` if none of its zones contains the name."""
    zones, name = _read(lab), _absolute(name)
    zone = zones.zone_of(name)
    return bool(_at(lab, zones.primaries(zone)[0], zone, name))


def replace(lab: Way, name: str, mnemonic: str, ttl: int, data: str) -> None:
    """Replace the records of *name* as ``dns set`` does, and remove what the resolver has cached about it."""
    _set(lab, argparse.Namespace(name=name, type=mnemonic, ttl=ttl, data=[data], **_QUIETLY))
    lab.call("resolver", "POST", "/admin/cache/flush", {"name": name})


def withdraw(lab: Way, name: str) -> None:
    """Delete all records of *name*, if there are any, and remove what the resolver has cached about it."""
    if exists(lab, name):
        _delete(lab, argparse.Namespace(name=name, type=None, **_QUIETLY))
    lab.call("resolver", "POST", "/admin/cache/flush", {"name": name})


# --- changes ----------------------------------------------------------------------------------------------------------


def _set(lab: Way, args: argparse.Namespace) -> int:
    zones, name = _read(lab), _absolute(args.name)
    zone = _zone_to_change(zones, args.name, args.zone)
    body = {"name": name, "type": args.type.upper(), "ttl": args.ttl, "rdata": args.data}
    try:
        answers = {host: lab.call(host, "PUT", _records(zone), body) for host in zones.primaries(zone)}
    except RefusedError as error:
        if not _are_one_record(args.type, args.data):
            raise
        raise RefusedError(f"{error}; quote the data of one record: {' '.join(args.data)!r}") from None
    written = {host: answer["serial"] for host, answer in answers.items()}
    stored = next(iter(answers.values()))["record"]
    lines = [f"{stored['name']} {stored['ttl']} {stored['type']} {each}" for each in stored["rdata"]]
    return _propagated(lab, args, zones, zone, written, lines)


def _are_one_record(mnemonic: str, words: Sequence[str]) -> bool:
    """Return whether *words*, each given as a separate record, together form the data of a single record."""
    try:
        rdata.from_text(rdtypes.from_text(mnemonic), [word.encode() for word in words], Name.from_text("."))
    except (LocalError, UnicodeEncodeError):
        return False
    return len(words) > 1


def _delete(lab: Way, args: argparse.Namespace) -> int:
    zones, name = _read(lab), _absolute(args.name)
    zone = _zone_to_change(zones, args.name, args.zone)
    primaries = zones.primaries(zone)
    types = [args.type.upper()] if args.type else [each["type"] for each in _at(lab, primaries[0], zone, name)]
    if not types:
        raise RefusedError(f"there is no record at {name}")
    if name == zone and not args.type:
        raise RefusedError(
            f"expected a type, because {name} is the apex of a zone, which keeps its SOA and NS; got none"
        )
    written = {}
    for host in primaries:
        for each in types:
            path = f"{_records(zone)}?{urlencode({'name': name, 'type': each})}"
            written[host] = lab.call(host, "DELETE", path)["serial"]
    return _propagated(lab, args, zones, zone, written, [f"{name} {each} deleted" for each in types])


def _zone_to_change(zones: Zones, name: str, zone: str | None) -> str:
    """Return *zone* if it is given, else the zone that contains *name*.

    The root zone is returned only if *name* ends with a dot, so that a typing error cannot change the root zone.
    """
    if zone is not None:
        if (zone := _absolute(zone)) not in zones.names:
            raise UnknownZoneError(zone, zones.names)
        return zone
    zone = zones.zone_of(_absolute(name))
    if zone == "." and not name.endswith("."):
        raise RefusedError(
            f"expected a name in one of the zones {', '.join(zones.names)}, or {name}. with a final dot "
            f"for a record of the root zone; got {name!r}"
        )
    return zone


def _zone(lab: Way, args: argparse.Namespace) -> int:
    if args.verb == "add":
        return _add_zone(lab, args)
    if args.file is not None:
        args.parser.error("expected no FILE with reload")
    zones, zone = _read(lab), _absolute(args.zone)
    if zone not in zones.names:
        raise UnknownZoneError(zone, zones.names)
    path = f"/admin/zones/{quote(zone)}/reload"
    written = {host: lab.call(host, "POST", path)["serial"] for host in zones.primaries(zone)}
    return _propagated(lab, args, zones, zone, written, [f"{zone} reloaded"])


def _add_zone(lab: Way, args: argparse.Namespace) -> int:
    """Add a zone to one server, and to the secondaries that the zone's NS records name."""
    if args.file is None:
        args.parser.error("expected FILE, the master file of the new zone")
    zones, zone = _read(lab), _absolute(args.zone)
    try:
        text = args.file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise RefusedError(f"{args.file}: cannot be read: {error.strerror}") from None
    if zone in zones.names:
        raise RefusedError(f"expected a new zone, but {zone} is served by {', '.join(zones.of(zone))}")
    body = {"zone": zone, "text": text, "source": str(args.file)}
    written = {args.server: lab.call(args.server, "POST", "/admin/zones", body)["serial"]}
    named = _name_servers_of(lab, args.server, zone, zone)
    lines = [f"{zone} added"]
    for host, fqdn in name_servers().items():
        like = [each["zone"] for each in zones.by_host.get(host, []) if "secondary" in each]
        if fqdn not in named or host == args.server:
            continue
        if like:
            lab.call(host, "POST", "/admin/zones", {"zone": zone, "like": like[0]})
        else:
            lines.append(f"{host} is in the NS records, but is no secondary of any zone: not added there")
    with contextlib.suppress(UnknownZoneError):  # the lab serves no parent of the new zone
        parent = zones.zone_of(zone)
        if not _name_servers_of(lab, next(iter(zones.of(parent))), parent, zone):
            lines.append(
                f"{parent} does not delegate it; "
                f"firstbyte dns set {zone} NS 300 {' '.join(sorted(named))} --zone {parent}"
            )
    return _propagated(lab, args, _read(lab), zone, written, lines, new=True)


def _name_servers_of(lab: Way, host: str, zone: str, name: str) -> set[str]:
    """Return the targets of the NS records at *name* in *zone*, as the server *host* reports them."""
    return {server for rrset in _at(lab, host, zone, name) if rrset["type"] == "NS" for server in rrset["rdata"]}


def _propagated(
    lab: Way,
    args: argparse.Namespace,
    zones: Zones,
    zone: str,
    written: dict[str, int],
    lines: Sequence[str],
    *,
    new: bool = False,
) -> int:
    """Wait until all secondaries have the new serial number, then print the delay of each server.

    Raises:
        NotPropagatedError: a secondary does not have the new serial number after ``args.wait`` seconds.
    """
    serial, before = max(written.values()), zones.of(zone)
    named = _name_servers_of(lab, next(iter(written)), zone, zone) if zones.silent else set()
    # A server that does not respond also counts as a secondary if the zone's NS records name it.
    missing = [
        host for host, fqdn in name_servers().items() if host not in written and (host in before or fqdn in named)
    ]
    end = time.monotonic() + args.wait
    hosts = [*written, *missing]
    while True:
        found = _read(lab, hosts)
        rows = {host: each for host, each in found.of(zone).items() if each["serial"] is not None}
        late = [h for h in missing if h not in rows or _older(rows[h]["serial"], serial)]
        if not late or time.monotonic() >= end:
            break
        time.sleep(POLL)  # polls: no event signals a completed transfer
    began = min((rows[host]["published"] for host in written if host in rows), default=0.0)
    unchanged = not new and all(before[host]["serial"] == written[host] for host in written)
    servers: list[dict[str, Any]] = [
        {
            "server": host,
            "serial": rows[host]["serial"] if host in rows else None,
            "role": "primary" if host in written else "secondary",
            "after_ms": round(1000 * (rows[host]["published"] - began), 1)
            if host in rows and host not in late
            else None,
        }
        for host in hosts
    ]
    if args.json:
        print(json.dumps({"zone": zone, "records": list(lines), "servers": servers}, indent=2))
    elif not getattr(args, "quiet", False):
        print("\n".join(lines))
        table = terminal.table("server", "serial", "", numbers=("serial",))
        for each in servers:
            after = each["after_ms"]
            when = f"not within {args.wait:g} s" if after is None else f"after {after:.0f} ms"
            note = [each["role"], *(["unchanged"] if unchanged else [when] if each["role"] == "secondary" else [])]
            table.add_row(each["server"], str(each["serial"] or "–"), ", ".join(note))
        terminal.console().print(table)
    if late:
        raise NotPropagatedError(
            f"{', '.join(late)} does not have serial {serial} of {zone} within {args.wait:g} s; "
            f"`firstbyte dns show` says what it has, `firstbyte logs {late[0]}` why"
        )
    return 0


def _older(serial: int, than: int) -> bool:
    """Return whether *serial* precedes *than* in serial number arithmetic (RFC 1982)."""
    return 0 < (than - serial) % 2**32 < 2**31


# --- listings ---------------------------------------------------------------------------------------------------------


def _show(lab: Way, args: argparse.Namespace) -> int:
    zones = _read(lab)
    if args.name is None:
        return _show_zones(zones, as_json=args.json)
    name = _absolute(args.name)
    zone = zones.zone_of(name)
    servers = zones.of(zone)
    if not servers:
        raise LabDownError(f"no name server of {zone} answers")
    host = next(iter(servers))
    records = lab.call(host, "GET", _records(zone)) if name == zone else _at(lab, host, zone, name)
    if not records:
        raise RefusedError(f"there is no record at {name} in {zone}")
    if args.json:
        print(json.dumps(records, indent=2))
        return 0
    for each in records:
        for data in each["rdata"]:
            print(f"{each['name']}\t{each['ttl']}\tIN\t{each['type']}\t{data}")
    return 0


def _show_zones(zones: Zones, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"servers": zones.by_host, "silent": zones.silent}, indent=2))
        return 0
    table = terminal.table("zone", "server", "serial", "RRsets", "", numbers=("serial", "RRsets"), keys=("zone",))
    for zone in zones.names:
        for host, each in zones.of(zone).items():
            table.add_row(zone, host, str(each["serial"] or "–"), str(each["rrsets"]), _role(each))
    for host, why in zones.silent.items():
        table.add_row("?", host, "–", "–", why)
    terminal.console().print(table)
    return 0


def _role(zone: dict[str, Any]) -> str:
    secondary = zone.get("secondary")
    if secondary is None:
        return f"primary, {PurePosixPath(zone['file']).name}"
    words = f"secondary of {', '.join(secondary['primaries'])}"
    if secondary["expired"]:
        words += ", expired"
    return f"{words}; {secondary['trouble']}" if secondary["trouble"] else words


# --- queries ----------------------------------------------------------------------------------------------------------


def _log(lab: Way, args: argparse.Namespace) -> int:
    known = [*name_servers("resolver"), *name_servers()]
    hosts = args.server or list(name_servers())
    if unknown := [host for host in hosts if host not in known]:
        raise UnknownHostError(unknown[0], known)
    ends = _since(lab, dict.fromkeys(hosts, NEWEST))
    if not ends:
        raise LabDownError(f"{', '.join(hosts)}: no answer; is the lab up?")
    cursors = {host: max(0, answer["next"] - args.limit) for host, answer in ends.items()}
    limit: int | None = args.limit
    try:
        while True:
            found = _since(lab, cursors)
            cursors |= {host: answer["next"] for host, answer in found.items()}
            _print_queries({host: answer["queries"] for host, answer in found.items()}, limit, as_json=args.json)
            limit = None
            if not args.follow:
                return 0
            time.sleep(FOLLOW)  # polls: no event signals new queries
    except KeyboardInterrupt:
        return 0


def _since(lab: Way, cursors: dict[str, int]) -> dict[str, Any]:
    """Return the queries that each server has logged since its cursor in *cursors*."""
    return _each(
        list(cursors), lambda host: lab.call(host, "GET", f"/admin/queries?limit={BATCH}&after={cursors[host]}")
    )[0]


def _print_queries(queries: dict[str, list[dict[str, Any]]], limit: int | None, *, as_json: bool) -> None:
    rows = sorted(({"server": host, **row} for host, each in queries.items() for row in each), key=lambda r: r["time"])
    for row in rows if limit is None else rows[-limit:]:
        print(json.dumps(row) if as_json else _line(row), flush=True)


def _line(row: dict[str, Any]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(row["time"])) + f"{row['time'] % 1:.3f}"[1:]
    took = "" if "took_ms" not in row else f" {row['took_ms']:.1f} ms" if row["upstream"] else " at once"
    query = f"{row['qname']} {row['qtype']}"
    return f"{at} {row['server']:8} {row['client']:15} {row['transport']} {row['rcode']:8} {query}{took}"


# --- requests ---------------------------------------------------------------------------------------------------------


def _read(lab: Way, hosts: Iterable[str] | None = None) -> Zones:
    """Return the zones of all name servers, or of *hosts*; raise `LabDownError` if no server responds."""
    found, silent = _each(
        list(name_servers() if hosts is None else hosts), lambda h: lab.call(h, "GET", "/admin/zones", timeout=TIMEOUT)
    )
    if not found:
        raise LabDownError(next(iter(silent.values()), "there is no name server"))
    return Zones(found, silent)


def _each(hosts: Sequence[str], ask: Callable[[str], Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Call *ask* for all *hosts* concurrently; return the results and the error messages, each keyed by host."""

    def one(host: str) -> tuple[str, Any, str]:
        try:
            return host, ask(host), ""
        except LabDownError as error:
            return host, None, str(error)

    with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
        every = list(pool.map(one, hosts))
    return {h: answer for h, answer, why in every if not why}, {h: why for h, _, why in every if why}


def _at(lab: Way, host: str, zone: str, name: str) -> list[dict[str, Any]]:
    """Return the RRsets at *name* in *zone*, as the server *host* reports them."""
    found: list[dict[str, Any]] = lab.call(host, "GET", f"{_records(zone)}?{urlencode({'name': name})}")
    return found


def _records(zone: str) -> str:
    return f"/admin/zones/{quote(zone)}/records"


def _absolute(name: str) -> str:
    """Return *name* in lower case with a final dot, escaped as the name servers write it."""
    try:
        return str(Name(Name.from_text(name.removesuffix(".") + ".").key))
    except NameSyntaxError as error:
        raise RefusedError(str(error)) from None
