"""Command-line arguments of a resolver, shared by the programs `resolver` and `encrypted`."""

import argparse
from pathlib import Path

from dnsmessage import Name
from resolver.cache import MAX_TTL
from resolver.server import Server
from serving import settings
from telemetry import Telemetry, endpoint


def _seconds(text: str) -> float:
    """Parse a number of seconds from 0 to one week, for argparse."""
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= MAX_TTL):
        raise argparse.ArgumentTypeError(f"expected seconds from 0 to {MAX_TTL}, got {text!r}")
    return float(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--listen``, ``--hints``, and the options for resolution and policy."""
    parser.add_argument("--listen", type=endpoint, required=True, metavar="HOST:PORT", help="UDP and TCP address")
    parser.add_argument("--hints", type=Path, required=True, metavar="FILE", help="root servers, as a master file")
    parser.add_argument(
        "--serve-stale",
        type=_seconds,
        default=0.0,
        metavar="SECONDS",
        help="if no server answers, return answers that expired at most this long ago (RFC 8767; default: never)",
    )
    parser.add_argument(
        "--no-qname-minimisation",
        dest="minimise",
        action="store_false",
        help="send the whole name to every server instead of the labels that it needs (RFC 9156)",
    )
    parser.add_argument(
        "--no-mixed-case",
        dest="mixed_case",
        action="store_false",
        help="send names in their original case, not in random case, which a reply has to repeat (0x20)",
    )
    parser.add_argument("--ipv6", action="store_true", help="also query name servers over IPv6 (default: IPv4 only)")
    settings.add_arguments(parser)


def server(args: argparse.Namespace, telemetry: Telemetry, hints: dict[Name, str]) -> Server:
    """Return the resolver that *args* describe; call its `start` to listen."""
    return Server(
        telemetry,
        hints,
        stale=args.serve_stale,
        minimise=args.minimise,
        mixed_case=args.mixed_case,
        ipv6=args.ipv6,
        policy=settings.from_arguments(args),
    )
