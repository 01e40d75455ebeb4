"""Settings of `serving.policy`, and the command-line arguments that set them for both servers."""

import argparse
import ipaddress
import os
from dataclasses import dataclass, field

from serving.cookies import SECRET

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a policy; by default, all clients are answered and the server's identity is not disclosed."""

    #: Networks whose queries are answered; empty: all.
    allow: tuple[Network, ...] = ()
    #: Name of this server, for NSID, ``id.server`` and ``hostname.bind``; empty: not disclosed.
    identity: str = ""
    #: Answer to ``version.bind`` and ``version.server``; empty: not disclosed.
    version: str = ""
    #: Whether a UDP query with a cookie but without a valid server cookie is answered with BADCOOKIE.
    require_cookies: bool = False
    #: Maximum number of identical responses per second to one network; 0: no limit.
    rate: int = 0
    #: Of the responses above the limit, every *slip*-th is sent truncated; the others are dropped; 0: all are dropped.
    slip: int = 2
    cookie_secret: bytes = field(default_factory=lambda: os.urandom(SECRET), repr=False)


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a network such as 198.19.0.0/16, got {text!r} ({error})") from None


def _text(text: str) -> str:
    if not 0 < len(text.encode()) <= 100 or not text.isprintable():
        raise argparse.ArgumentTypeError(f"expected 1 to 100 printable bytes, got {text!r}")
    return text


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 100_000):
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 100000, got {text!r}")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a policy to the command line of a server."""
    parser.set_defaults(cookie_secret=os.urandom(SECRET))  # chosen once, so that all workers share it
    group = parser.add_argument_group("policy")
    group.add_argument(
        "--allow",
        type=_network,
        action="append",
        default=[],
        metavar="CIDR",
        help="answer only clients of this network, REFUSED for all others; may be repeated (default: any)",
    )
    group.add_argument(
        "--identity",
        type=_text,
        default=os.environ.get("FIRSTBYTE_IDENTITY"),
        metavar="NAME",
        help="answer NSID, id.server and hostname.bind with this (default: FIRSTBYTE_IDENTITY)",
    )
    group.add_argument("--version-text", type=_text, metavar="TEXT", help="answer version.bind with this")
    group.add_argument(
        "--require-cookies",
        action="store_true",
        help="answer BADCOOKIE to a UDP query with a cookie but without a valid cookie of this server (RFC 7873)",
    )
    group.add_argument(
        "--rate-limit",
        type=_number,
        default=0,
        metavar="N",
        help="maximum number of identical UDP responses per second to one /24 or /56 network (default 0: no limit)",
    )
    group.add_argument(
        "--rate-slip",
        type=_number,
        default=2,
        metavar="N",
        help="send every N-th response above the limit truncated, so that a real client retries over TCP; 0: none",
    )


def from_arguments(args: argparse.Namespace) -> Settings:
    """Return the settings given on the command line."""
    return Settings(
        allow=tuple(args.allow),
        identity=args.identity or "",
        version=args.version_text or "",
        require_cookies=args.require_cookies,
        rate=args.rate_limit,
        slip=args.rate_slip,
        cookie_secret=args.cookie_secret,
    )
