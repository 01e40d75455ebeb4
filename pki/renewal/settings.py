"""Certificate settings of a service, and their command-line flags."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from renewal.material import KEYS
from telemetry import endpoint


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings for obtaining and renewing a certificate."""

    #: URL of the CA's ACME directory.
    directory: str
    #: Folder for ``account.pem`` (account key) and ``pair.pem`` (private key and chain).
    tls_dir: Path
    #: File with the root certificate, in PEM.
    trust: Path
    names: tuple[str, ...]
    #: Fraction of the lifetime at which to renew; None selects it by the lifetime (as RFC 9773 advises).
    renew_at: float | None = None
    #: Type of the certificate's key, one of `renewal.material.KEYS`.
    key: str = KEYS[0]
    #: Address of the primary name server and TSIG key file for dns-01; None selects http-01.
    dns01: tuple[tuple[str, int], Path] | None = None
    #: Whether the service also presents its certificate to servers that require one (mTLS).
    as_client: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the certificate flags to a service's command line."""
    group = parser.add_argument_group("certificate")
    for flag, kind, metavar, text in (
        ("acme", str, "URL", "ACME directory, for example https://ca.example.com/directory"),
        ("tls-dir", Path, "DIR", "folder for the account key, the private key and the chain"),
        ("trust", Path, "FILE", "root certificate (PEM)"),
    ):
        variable = f"FIRSTBYTE_{flag.upper().replace('-', '_')}"
        default = os.environ.get(variable)
        group.add_argument(
            f"--{flag}", type=kind, default=default, metavar=metavar, help=f"{text} (default: {variable})"
        )
    group.add_argument("--cert-name", action="append", default=[], metavar="NAME", help="DNS name (repeatable)")
    group.add_argument("--cert-key", choices=KEYS, default=KEYS[0], help="type of its key (default %(default)s)")
    group.add_argument(
        "--dns01", type=endpoint, metavar="HOST:PORT", help="primary name server: validate with dns-01 by UPDATE"
    )
    group.add_argument("--dns01-key", type=Path, metavar="FILE", help="TSIG key for --dns01")
    group.add_argument(
        "--renew-at",
        type=_fraction,
        metavar="SHARE",
        help="share of the lifetime at which to renew, 0.1 to 0.9 (default 1/2, or 2/3 from 10 days on)",
    )


def from_args(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Settings:
    """Return the settings in *args*; exit with a usage error if a required flag is missing."""
    wanted = {"--acme": args.acme, "--tls-dir": args.tls_dir, "--trust": args.trust, "--cert-name": args.cert_name}
    if missing := [flag for flag, value in wanted.items() if not value]:
        parser.error(f"expected {', '.join(missing)}")
    if (args.dns01 is None) != (args.dns01_key is None):
        parser.error("expected --dns01 and --dns01-key together")
    dns01 = None if args.dns01 is None else (args.dns01, args.dns01_key)
    return Settings(args.acme, args.tls_dir, args.trust, tuple(args.cert_name), args.renew_at, args.cert_key, dns01)


def additional(text: str) -> tuple[str, str]:
    """Parse NAME=KIND: DNS name and key type of an additional certificate (an argparse type)."""
    name, _, kind = text.partition("=")
    if not name or kind not in KEYS:
        raise argparse.ArgumentTypeError(f"expected NAME=KIND with a kind of {', '.join(KEYS)}; got {text!r}")
    return name.lower(), kind


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 0.9:
        raise argparse.ArgumentTypeError(f"expected 0.1 to 0.9, got {text!r}")
    return value
