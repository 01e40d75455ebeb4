"""``firstbyte audit`` and ``firstbyte traps``: test HTTPS clients against servers with one deliberate defect each.

These servers are called traps. They run on 127.0.0.1 for the duration of the command; no lab is needed.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from firstbyte import terminal
from hostfiles import junit
from hostfiles.junit import Case, Suite
from runtime import LabError, UsageError
from traps.audit import CLIENTS, AuditError, Finding, audit, check
from traps.catalogue import TRAPS, Trap

#: Exit codes if a client reacted wrongly (WRONG), or could not fetch a page even from a correct server (INVALID).
WRONG, INVALID = 1, 4
#: Findings of an audit, keyed by client name.
Findings = Mapping[str, Sequence[Finding]]


class NotStartedError(LabError):
    """The traps cannot be started on this machine."""

    exit_code = INVALID


def traps(args: argparse.Namespace) -> int:
    """Print the catalogue of traps; return 0."""
    if args.json:
        fields = ("name", "group", "what", "expected")
        print(json.dumps([{field: getattr(trap, field) for field in fields} for trap in TRAPS], indent=2))
        return 0
    table = terminal.table("trap", "group", "what is special", "right reaction", keys=("trap",))
    for trap in TRAPS:
        table.add_row(trap.name, trap.group, escape(trap.what), trap.expected)
    terminal.console().print(table)
    return 0


def run(args: argparse.Namespace) -> int:
    """Audit a client, or several well-known ones; return 0 if every reaction is right (see `WRONG` and `INVALID`).

    Raises:
        UsageError: the client, a trap, the baseline or an output file does not exist.
        NotStartedError: the traps cannot be started.
    """
    commands = _commands(args)
    chosen = _chosen(args.only)
    before = _baseline(args.baseline, commands) if args.baseline else None
    outputs = [path for path in (args.junit, args.markdown) if path is not None]
    for path in outputs:
        if path.is_dir() or not path.resolve().parent.is_dir():
            raise UsageError(f"expected a file in a folder that exists, got {path}")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise UsageError(f"expected two files for --junit and --markdown, got {outputs[0]} twice")
    findings: dict[str, Sequence[Finding]] = {}
    began, at = time.monotonic(), time.time()
    for name, command in commands.items():
        if not args.json:
            print(f"  {name}: {len(chosen)} traps, at most {args.limit:g} s each", file=sys.stderr, flush=True)
        try:
            findings[name] = asyncio.run(_interruptible(command, chosen, args.limit, args.jobs))
        except OSError as error:
            raise NotStartedError(f"cannot start the traps: {error}") from None
    if args.json:
        print(json.dumps({name: [each.as_json() for each in found] for name, found in findings.items()}, indent=2))
    else:
        _show(findings)
    if args.markdown is not None:
        args.markdown.write_text(_markdown(findings, terminal.date(at)), encoding="utf-8")
    if args.junit is not None:
        took = time.monotonic() - began
        junit.write(
            args.junit, [_suite(*each, before, took / len(findings), terminal.iso(at)) for each in findings.items()]
        )
    return _exit_code(findings, before)


def _commands(args: argparse.Namespace) -> dict[str, Sequence[str]]:
    """Return the commands to audit, keyed by name.

    Raises:
        UsageError: there is neither a command nor a well-known client, or a client is unknown or not installed.
    """
    if args.words and args.client:
        raise UsageError("expected either --client or a command after --, got both")
    if args.words:
        try:
            check(args.words)
        except AuditError as error:
            raise UsageError(str(error)) from None
        return {Path(args.words[0]).name: args.words}
    names = [name for name in CLIENTS if _installed(name)] if args.client == ["all"] else args.client
    if not names:
        raise UsageError("expected a command after --, with {url} in it, or --client NAME")
    for name in names:
        if name not in CLIENTS:
            raise UsageError(
                f"expected a client ({', '.join(CLIENTS)}), or all; got {name!r}{terminal.meant(name, CLIENTS)}"
            )
        if not _installed(name):
            raise UsageError(f"expected a client that is installed, got {name!r}, which is not")
    return {name: CLIENTS[name] for name in names}


def _installed(client: str) -> bool:
    """Return whether *client* can run: its program and, for a Python library, the library itself are installed."""
    words = CLIENTS[client]
    return shutil.which(words[0]) is not None and (words[0] != sys.executable or _importable(client))


def _importable(module: str) -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - only this function looks for optional libraries

    return module == "urllib" or find_spec(module) is not None


def _chosen(only: Sequence[str]) -> list[Trap]:
    """Return the traps named in *only*, or all if *only* is empty; the first control is always included."""
    names = [trap.name for trap in TRAPS]
    for name in only:
        if name not in names:
            raise UsageError(f"expected a trap of `firstbyte traps`, got {name!r}{terminal.meant(name, names)}")
    return [trap for trap in TRAPS if not only or trap.name in only or trap is TRAPS[0]]


async def _interruptible(command: Sequence[str], chosen: Sequence[Trap], limit: float, jobs: int) -> Sequence[Finding]:
    """Audit one client; on SIGTERM or SIGHUP, clean up as after Ctrl-C and raise `KeyboardInterrupt`."""
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(audit(command, chosen, limit=limit, jobs=jobs))
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, working.cancel)
    try:
        return await working
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _baseline(path: Path, clients: Iterable[str]) -> dict[tuple[str, str], bool]:
    """Read the JSON of an earlier audit; return whether each reaction was right, keyed by client and trap.

    Raises:
        UsageError: the file cannot be read, or has no findings about one of *clients*.
    """
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        found = {(client, each["trap"]): each["verdict"] == "right" for client, rows in body.items() for each in rows}
    except OSError as error:
        raise UsageError(f"--baseline {path}: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UsageError(f"--baseline {path}: expected the output of `firstbyte audit --json`") from None
    known = {client for client, _ in found}
    if missing := [client for client in clients if client not in known]:
        raise UsageError(f"--baseline {path}: expected findings about {missing[0]}, got {', '.join(sorted(known))}")
    return found


def _worse(name: str, finding: Finding, before: Mapping[tuple[str, str], bool] | None) -> bool:
    """Return whether a reaction is wrong and, if there is a baseline, was right in it or is missing from it."""
    return bool(finding.verdict) and (before is None or before.get((name, finding.trap.name), True))


def _exit_code(findings: Findings, before: Mapping[tuple[str, str], bool] | None) -> int:
    """Return the exit code; with a baseline, a wrong reaction counts only if it was right in the baseline."""
    for name, found in findings.items():
        if all(each.verdict for each in found if each.trap.group == "control"):
            said = next((each.said for each in found if each.said), "no message")
            print(
                f"firstbyte audit: {name} fetched no page, not even from servers that are right: {said}",
                file=sys.stderr,
            )
            return INVALID
    wrong = [(name, each) for name, found in findings.items() for each in found if _worse(name, each, before)]
    for name, each in wrong if before is not None else ():
        print(f"firstbyte audit: worse than the baseline: {name}, {each.trap.name}: {each.verdict}", file=sys.stderr)
    return WRONG if wrong else 0


def _show(findings: Findings) -> None:
    """Print a table of findings: in full for a single client, otherwise with one column per client."""
    console = terminal.console()
    if len(findings) == 1:
        ((name, found),) = findings.items()
        table = terminal.table("trap", "what is special", "reaction", "verdict", "requests", "s", keys=("trap",))
        for each in found:
            style = "red" if each.verdict else "green"
            table.add_row(
                each.trap.name,
                escape(each.trap.what),
                each.reaction,
                f"[{style}]{each.verdict or 'right'}[/]",
                str(each.requests),
                f"{each.took:.1f}",
            )
        console.print(table)
    else:
        table = terminal.table("trap", *findings, keys=("trap",))
        for row in zip(*findings.values(), strict=True):
            cells = (f"[red]{each.verdict}[/]" if each.verdict else "[green]✓[/]" for each in row)
            table.add_row(row[0].trap.name, *cells)
        console.print(table)
    for name, found in findings.items():
        wrong = sum(bool(each.verdict) for each in found)
        console.print(f"{name}: {len(found) - wrong} of {len(found)} reactions are right")


def _markdown(findings: Findings, date: str) -> str:
    """Return the findings as a table in Markdown."""
    lines = [
        f"| trap | what is special | {' | '.join(findings)} |",
        f"|---|---|{'---|' * len(findings)}",
    ]
    for row in zip(*findings.values(), strict=True):
        cells = " | ".join(each.verdict or "✓" for each in row)
        lines.append(f"| `{row[0].trap.name}` | {row[0].trap.what} | {cells} |")
    counts = " | ".join(f"{sum(not each.verdict for each in found)} of {len(found)}" for found in findings.values())
    return "\n".join([f"Measured {date}.", "", *lines, f"| | reactions that are right | {counts} |", ""])


def _suite(
    name: str, found: Sequence[Finding], before: Mapping[tuple[str, str], bool] | None, took: float, began: str
) -> Suite:
    """Return the findings about one client as a test suite; reactions also wrong in the baseline are skipped."""
    cases = []
    for each in found:
        outcome = "failure" if _worse(name, each, before) else "skipped" if each.verdict else "passed"
        cases.append(Case(each.trap.name, outcome, _why(each)))  # type: ignore[arg-type]  # one of the outcomes
    return Suite(f"audit of {name}", cases, took, began)


def _why(finding: Finding) -> str:
    facts: dict[str, Any] = {"exit code": finding.code, "requests": finding.requests}
    details = ", ".join(f"{key} {value}" for key, value in facts.items() if value is not None)
    return f"{finding.trap.what}: {finding.verdict or 'right'} ({details}) {finding.said}".rstrip()
