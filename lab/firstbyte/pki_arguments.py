"""Command-line parser of ``firstbyte pki`` and its subcommands."""

import argparse
from collections.abc import Callable
from pathlib import Path

from firstbyte import arguments
from monitor import command as monitor
from telemetry import add_arguments

#: Same values as `firstbyte.certificates.REASONS`, repeated here so that start-up does not import that module.
REASONS = (
    "unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn",
)  # fmt: skip
#: Same values as `renewal.material.KEYS`.
KEYS = ("ecdsa-p256", "rsa-2048")
#: Function that adds a subcommand with a help text, and with ``--json`` if that option has a help text as well.
Verb = Callable[..., argparse.ArgumentParser]


def add_pki(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the ``pki`` command; *add* registers a command with the command-line parser."""
    pki = add(
        "pki",
        "operate the certificate authority",
        "pki root > root.pem",
        "pki list --json",
        "pki show www.example.com",
        "pki request test.example.com > pair.pem",
        "pki verify-log",
        "pki backup ca.tar",
        "pki rotate intermediate --all",
        "pki recall --all --spread 30 --url https://ca.example.com/recall",
        "pki watch --once",
        "pki watch www.example.org:443 --interval 3600",
    )
    verbs = "root|list|show|request|renew|revoke|rotate|verify-log|backup|restore|watch|recall"
    kinds = pki.add_subparsers(dest="kind", required=True, metavar=verbs)

    def verb(name: str, about: str, as_json: str = "") -> argparse.ArgumentParser:
        made = kinds.add_parser(name, help=about)
        made.set_defaults(parser=made)
        if as_json:
            made.add_argument("--json", action="store_true", help=as_json)
        return made

    verb("root", "the trust anchor as PEM on standard output")
    verb("list", "certificates that are valid now", "everything that the CA knows of each, as JSON")
    for each in (_certificates, _recall, _rotate, _verify_log, _backup, _watch):
        each(verb)


def _certificates(verb: Verb) -> None:
    """Add the subcommands for individual certificates."""
    one = "serial number, its start, or a name in the certificate"
    show = verb("show", "everything about a certificate", "as JSON")
    show.add_argument("certificate", metavar="SERIAL|NAME", help=one)
    revoke = verb("revoke", "revoke a certificate", "as JSON")
    revoke.add_argument("certificate", metavar="SERIAL|NAME", help=one)
    revoke.add_argument("--reason", choices=REASONS, default=REASONS[0], help="default %(default)s")
    renew = verb("renew", "make hosts renew their certificates now", "as JSON")
    renew.add_argument("host", nargs="+", metavar="HOST")
    request = verb("request", "obtain a certificate by dns-01, and print its new private key and its chain", "as JSON")
    request.add_argument("name", nargs="+", metavar="NAME", help="DNS name in a zone of the lab; *.NAME is a wildcard")
    request.add_argument("--key", choices=KEYS, default=KEYS[0], help="type of the key (default %(default)s)")
    request.add_argument("--profile", default="", metavar="NAME", help="certificate profile (default: the CA's)")


def _recall(verb: Verb) -> None:
    about = "ask clients to replace certificates now; without a selection, show recalls"
    recall = verb("recall", about, "recalls and their progress as JSON")
    which = recall.add_mutually_exclusive_group()
    which.add_argument(
        "serial",
        nargs="*",
        default=[],
        metavar="SERIAL|NAME",
        help="serial number, its start, or a name in a certificate",
    )
    which.add_argument("--issuer", metavar="KEY-ID", help="all certificates of this issuing CA")
    which.add_argument("--all", action="store_true", help="all certificates")
    which.add_argument("--end", action="store_true", help="end all recalls")
    recall.add_argument(
        "--in", dest="start_in", type=arguments.wait, metavar="SECONDS", help="until the window begins (0)"
    )
    recall.add_argument("--spread", type=arguments.wait, metavar="SECONDS", help="width of the window (60)")
    recall.add_argument("--url", help="page that explains the recall, sent to clients")


def _rotate(verb: Verb) -> None:
    about = "show the state of a rotation; with a kind: perform its next step, unless a host is not ready for it"
    rotate = verb("rotate", about, "state, hosts and steps, as JSON")
    rotate.add_argument("what", nargs="?", choices=["intermediate", "root"], help="what to replace")
    rotate.add_argument("--all", action="store_true", help="perform all steps, one after the other")
    rotate.add_argument("--finish", action="store_true", help="complete the rotation in progress, if there is one")
    rotate.add_argument("--force", action="store_true", help="perform the step even if hosts are not ready")
    rotate.add_argument(
        "--timeout",
        type=arguments.limit,
        default=60.0,
        metavar="SECONDS",
        help="wait for the hosts, 1 to 600 (default %(default)g)",
    )


def _verify_log(verb: Verb) -> None:
    verify = verb(
        "verify-log",
        "verify the issuance log, and compare the CA's store and TLS servers with it; exit code 1: it names the first "
        "bad entry, or certificates that are not in the log",
        "entries, damage, serial numbers and servers, as JSON",
    )
    verify.add_argument(
        "server",
        nargs="*",
        type=arguments.server,
        metavar="HOST:PORT",
        help="TLS servers to compare (default: both edges)",
    )


def _backup(verb: Verb) -> None:
    save = verb("backup", "write the CA's keys (encrypted), store and issuance log to a file, while the CA runs")
    save.add_argument("file", type=Path, metavar="FILE")
    back = verb("restore", "replace the CA's files with those of a backup, if it is intact and from this lab")
    back.add_argument("file", type=Path, metavar="FILE")
    back.add_argument("--discard-newer", action="store_true", help="forget certificates issued since the backup")


def _watch(verb: Verb) -> None:
    watch = verb(
        "watch",
        "monitor TLS endpoints with two independent probers (default: all of the lab); exit codes: 1 an alarm is "
        "active, 4 a check could not be made",
    )
    monitor.add_flags(watch)
    watch.add_argument("--lab", action="store_true", help="monitor from inside the lab, with its resolver and roots")
    add_arguments(watch)
