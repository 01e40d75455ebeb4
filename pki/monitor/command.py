"""Monitor TLS endpoints for certificates that expire, are revoked, or are not those on disk: once, or until SIGTERM."""

import argparse
import asyncio
import json
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monitor.channels import Webhook
from monitor.judgement import ALARM_AT, CHECKS, State
from monitor.openssl import Prober as Openssl
from monitor.probers import Collector, OpensslProber, Prober, SslProber, Target
from monitor.watcher import Inventory, Settings, Watcher, export
from stub import AsyncStub
from telemetry import Telemetry, add_arguments, endpoint, log

#: Exit codes: no alarm is active; an alarm is active; a check could not be performed.
GOOD, ALARM, UNKNOWN = 0, 1, 4
EPILOG = """\
examples:
  python -m monitor www.example.org:443
  python -m monitor www.example.org:443=/etc/tls/chain.pem --webhook http://127.0.0.1:9093/ --admin 127.0.0.1:9900

exit codes with --once: 0 no alarm, 1 an alarm is active, 2 usage, 4 no alarm, but a check could not be made
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags specific to a monitor; the flags common to all services are not included."""
    parser.add_argument(
        "target", nargs="*", type=target, metavar="HOST:PORT[=FILE]",
        help="endpoint, and the PEM file that its server loads, if it is on this machine",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="look once, print the findings, and exit")
    parser.add_argument(
        "--json", action="store_true", help="print the findings as JSON; without --once, one line per round"
    )
    parser.add_argument("--interval", type=_seconds, default=60.0, metavar="S", help="seconds between rounds (60)")
    parser.add_argument(
        "--alarm-at", type=_share, default=ALARM_AT, metavar="SHARE",
        help="share of the lifetime after which a renewal is overdue (default 0.72: two thirds, and a twentieth)",
    )  # fmt: skip
    parser.add_argument("--trust", type=_roots, metavar="FILE", help="trusted roots in PEM (default: the system's)")
    parser.add_argument(
        "--webhook", action="append", default=[], type=_url, metavar="URL",
        help="post alarms and heartbeats to this URL as JSON (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--inventory", type=Path, metavar="FILE",
        help="alarm for names in this file that are not monitored; as printed by `firstbyte pki list --json`",
    )  # fmt: skip
    parser.add_argument("--name", default="monitor", help="name of this monitor in its heartbeats")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m monitor", description=__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_flags(parser)
    add_arguments(parser)
    args = parser.parse_args(argv)
    if not args.target:
        parser.error("expected HOST:PORT")
    log.configure("monitor", args.log_level)
    return run(args)


def run(args: argparse.Namespace, inventory: Inventory | None = None) -> int:
    """Run a monitor with the parsed flags *args*; return the exit code.

    Args:
        args: parsed flags, including those of `telemetry.add_arguments`.
        inventory: returns the certificates that should be monitored, unless ``--inventory`` names a file.
    """
    return asyncio.run(_run(args, _from_file(args.inventory) if args.inventory else inventory))


def words(args: argparse.Namespace) -> list[str]:
    """Return the flags and endpoints in *args* as command-line arguments."""
    found = [f"{each}={each.file}" if each.file else str(each) for each in args.target]
    found += [f"--{flag}" for flag in ("once", "json") if getattr(args, flag)]
    found += ["--interval", str(args.interval), "--alarm-at", str(args.alarm_at), "--name", args.name]
    return found + [word for url in args.webhook for word in ("--webhook", url)]


async def _run(args: argparse.Namespace, inventory: Inventory | None) -> int:
    stub = AsyncStub()
    probers: list[Prober] = [SslProber(args.trust, stub)]
    if Openssl.available():
        probers.append(OpensslProber(args.trust))
    else:
        print("monitor: no second prober: openssl is not installed", file=sys.stderr)
    settings = Settings(args.name, args.interval, args.alarm_at)
    webhooks = [Webhook(url) for url in args.webhook]
    watcher = Watcher(args.target, probers, Collector(stub), settings=settings, webhooks=webhooks, inventory=inventory)
    if args.once:
        await watcher.round()
        show(watcher, as_json=args.json)
        return exit_code(watcher)
    after = partial(_show_line, watcher) if args.json else None
    telemetry = Telemetry("monitor")
    export(watcher, telemetry)
    stop = asyncio.Event()
    async with telemetry.serving(args):
        running = asyncio.create_task(watcher.run(stop, after))
        stopped = asyncio.create_task(telemetry.until_stopped())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        stopped.cancel()
        await running
    return exit_code(watcher)


def exit_code(watcher: Watcher) -> int:
    """Return 1 if an alarm is active, otherwise 4 if a check could not be performed, otherwise 0."""
    if watcher.alarms.active:
        return ALARM
    return UNKNOWN if watcher.alarms.unknown else GOOD


def show(watcher: Watcher, *, as_json: bool) -> None:
    """Print the findings of the last round."""
    if as_json:
        print(json.dumps(as_dict(watcher), indent=2))
        return
    for look in watcher.looks:
        bad = [f for f in look.findings if f.state is not State.OK]
        serial = f"serial {look.seen.serial}" if look.seen.serial else "no certificate"
        print(f"{look.target} ({look.prober}): {'; '.join(f.state for f in bad) or 'ok'}; {serial}")
        for finding in sorted(look.findings, key=lambda f: CHECKS.index(f.check)):
            print(f"  {finding.state:8}{finding.check:12}{finding.detail}".rstrip())
    shown = {(str(look.target), look.prober) for look in watcher.looks}
    for subject, detail in watcher.alarms.active.items():
        if (subject.about, subject.prober) not in shown:
            print(f"alarm: {subject}: {detail}")


def _show_line(watcher: Watcher) -> None:
    """Print the findings of the last round as one line of JSON."""
    print(json.dumps(as_dict(watcher)), flush=True)


def as_dict(watcher: Watcher) -> dict[str, Any]:
    """Return the findings of the last round and all active alarms, for ``--json``."""
    return {
        "endpoints": [
            {
                "target": str(look.target),
                "prober": look.prober,
                "serial": look.seen.serial,
                "not_after": look.seen.leaf.not_valid_after_utc.isoformat() if look.seen.leaf else None,
                "findings": {f.check: {"state": f.state, "detail": f.detail} for f in look.findings},
            }
            for look in watcher.looks
        ],
        "alarms": [
            {"about": s.about, "check": s.check, "prober": s.prober, "detail": text}
            for s, text in watcher.alarms.active.items()
        ],
        "exit_code": exit_code(watcher),
    }


def target(text: str) -> Target:
    """Parse ``HOST:PORT`` or ``HOST:PORT=FILE`` (an argparse type)."""
    place, _, file = text.partition("=")
    host, port = endpoint(place)
    return Target(host, port, Path(file) if file else None)


def certified(entries: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return names and serial numbers, oldest first, from the output of ``firstbyte pki list --json``."""
    ordered = sorted(entries, key=lambda each: str(each["issued"]))
    return [(str(name).lower(), str(each["serial"])) for each in ordered for name in each["names"]]


def _from_file(path: Path) -> Callable[[], Awaitable[Iterable[tuple[str, str]] | None]]:
    async def read() -> Iterable[tuple[str, str]] | None:
        try:
            return certified(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            expected = "expected a list as printed by `firstbyte pki list --json`"
            print(f"monitor: {path}: {expected}: {error}", file=sys.stderr)
            return None

    return read


def _roots(text: str) -> Path:
    try:
        ssl.create_default_context(cafile=text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"expected a file with roots in PEM, got {text!r}: {error.strerror}") from None
    return Path(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"expected 0.5 to 86400 seconds, got {text!r}")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value < 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0.1 to below 1, got {text!r}")
    return value


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"expected an http or https URL, got {text!r}")
    return text
