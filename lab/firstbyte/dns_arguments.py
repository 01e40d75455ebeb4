"""Command-line parser of ``firstbyte dns`` and its subcommands."""

import argparse
from collections.abc import Callable
from pathlib import Path

from firstbyte import arguments


def add_dns(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the ``dns`` command; *add* registers a command with the command-line parser."""
    dns = add(
        "dns",
        "change and show records and zones, and follow queries",
        "dns set mine.example.com A 30 198.19.20.80",
        "dns delete mine.example.com",
        "dns show example.com",
        "dns zone reload example.com",
        "dns zone add shop.test ./shop.zone",
        "dns log --follow",
        "dns log resolver",
    )
    actions = dns.add_subparsers(dest="action", required=True, metavar="set|delete|show|zone|log")

    def action(name: str, about: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=about, description=about[:1].upper() + about[1:] + ".")
        made.set_defaults(parser=made)
        made.add_argument("--json", action="store_true", help="as JSON")
        return made

    put = action("set", "replace the records of one name and type, and wait until all secondaries have them")
    put.add_argument("name", metavar="NAME")
    put.add_argument("type", metavar="TYPE", help="A, MX, TXT, TYPE65280, …")
    put.add_argument("ttl", type=arguments.ttl, metavar="TTL", help="seconds")
    put.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="one record each: 198.19.20.80, '10 mail', 'a text', '\"two\" \"texts\"'",
    )
    delete = action("delete", "delete the records of a name, and wait until all secondaries have done so")
    delete.add_argument("name", metavar="NAME")
    delete.add_argument("type", nargs="?", metavar="TYPE", help="default: every type")
    show = action("show", "show all zones and their servers, a zone, or the records of a name")
    show.add_argument("name", nargs="?", metavar="NAME", help="a zone or a name; default: all zones and their servers")
    zone = action("zone", "add a zone, or read the file of a zone again, which drops other changes")
    zone.add_argument("verb", choices=["add", "reload"])
    zone.add_argument("zone", metavar="ZONE")
    zone.add_argument("file", nargs="?", type=Path, metavar="FILE", help="with add: the master file")
    zone.add_argument("--server", default="ns1", metavar="SERVER", help="with add: the primary (ns1)")
    log = action("log", "show the latest queries of the name servers, or of the resolver with the time that each took")
    log.add_argument("server", nargs="*", metavar="SERVER", help="for example resolver; default: all name servers")
    log.add_argument("--follow", "-f", action="store_true", help="print new entries until Ctrl-C")
    log.add_argument("--limit", type=arguments.repeats, default=20, metavar="N", help="the latest N queries (20)")
    for each in (put, delete):
        each.add_argument(
            "--zone", metavar="ZONE", help="the zone to change, for example to delegate a name (default: the closest)"
        )
    for each in (put, delete, zone):
        each.add_argument(
            "--wait", type=arguments.wait, default=10.0, metavar="SECONDS", help="time-out for the secondaries (10)"
        )
