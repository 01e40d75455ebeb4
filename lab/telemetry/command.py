"""Command-line arguments that all services share."""

import argparse
import os
from pathlib import Path

from telemetry.log import LEVELS


def endpoint(text: str) -> tuple[str, int]:
    """Parse ``HOST:PORT``; for use as an argparse type.

    Raises:
        argparse.ArgumentTypeError: *text* is not an IPv4 address or name with a port from 0 to 65535.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, got {text!r}")
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
