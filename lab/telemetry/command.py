"""Command-line arguments that all services have."""

import argparse
import ipaddress
import os
from pathlib import Path

from telemetry.log import LEVELS

#: Maximum number of worker processes, far above the number of useful ones: one per CPU core.
MAX_WORKERS = 64


def endpoint(text: str) -> tuple[str, int]:
    """Parse ``HOST:PORT`` or ``[IPv6]:PORT``; for use as an argparse type.

    Raises:
        argparse.ArgumentTypeError: *text* is not an address or name with a port from 0 to 65535.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, got {text!r}")
    if host[0] == "[" and host[-1] == "]":
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected an IPv6 address in brackets, got {text!r}") from None
    return host, int(port)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--admin``, ``--token-file`` and ``--log-level``; the first two take their defaults from the environment."""
    group = parser.add_argument_group("operation")
    group.add_argument(
        "--admin",
        type=endpoint,
        default=os.environ.get("FIRSTBYTE_ADMIN"),
        metavar="HOST:PORT",
        help="serve /metrics, /health and /admin here (default: FIRSTBYTE_ADMIN)",
    )
    group.add_argument(
        "--token-file",
        type=Path,
        default=os.environ.get("FIRSTBYTE_TOKEN_FILE"),
        metavar="FILE",
        help="bearer token that /admin requires (default: FIRSTBYTE_TOKEN_FILE)",
    )
    group.add_argument("--log-level", choices=LEVELS, default="INFO", type=str.upper, help="least severe event logged")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``, for services that can share their ports among several processes (`telemetry.workers`)."""
    parser.add_argument(
        "--workers",
        type=_processes,
        default=1,
        metavar="N",
        help="processes that share the ports (default 1); the kernel gives each connection to one of them",
    )


def _processes(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_WORKERS):
        raise argparse.ArgumentTypeError(f"expected a number of processes from 1 to {MAX_WORKERS}, got {text!r}")
    return int(text)
