"""``firstbyte run`` and ``firstbyte drill``: conducted inside the lab; outside, a host of the service `lab` is started.

The exit code is the verdict: 0 pass or skipped · 1 fail (of a control: as it should be) · 4 invalid.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from drills import DRILLS
from experiments import (
    BusyError,
    Experiment,
    Order,
    Outcome,
    ParameterError,
    Verdict,
    archive,
    conduct,
    parameters,
    report,
)
from firstbyte import where
from runtime import InsideLab, Lab, LabError
from scenarios import SCENARIOS

#: Inside the lab; a volume that the console serves from.
RESULTS = Path("/srv/results")
#: Where the command line copies results to, outside.
COPIED = Path("results")
Kind = type[Experiment[Any]]
COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INVALID: "yellow", Verdict.SKIPPED: "yellow"}


@dataclass(frozen=True, slots=True)
class Done:
    """One run of several."""

    name: str
    verdict: Verdict
    took: float
    folder: Path | None


def run(args: argparse.Namespace) -> int:
    """Run a scenario."""
    return _command(args, SCENARIOS)


def drill(args: argparse.Namespace) -> int:
    """Run a drill."""
    return _command(args, DRILLS)


def _command(args: argparse.Namespace, kinds: Sequence[Kind]) -> int:
    if args.list:
        print(json.dumps([_described(kind) for kind in kinds], indent=2) if args.json else _listing(kinds))
        return 0
    try:
        chosen = _chosen(args, kinds)
        for kind in chosen:  # refuse before anything starts
            parameters.bind(kind.settings, quick=args.quick, given=args.set)
    except ParameterError as error:
        print(f"firstbyte {args.command}: error: {error}", file=sys.stderr)
        return 2
    if not InsideLab.is_here():
        return _outside(args)
    return _inside(args, chosen)


def _chosen(args: argparse.Namespace, kinds: Sequence[Kind]) -> list[Kind]:
    names = [kind.name for kind in kinds]
    if args.name is None:
        raise ParameterError(f"expected a name of {', '.join(names)}; all; or --list")
    if args.name == "all":
        if args.set:
            raise ParameterError("expected --set with one experiment, not with all")
        return list(kinds)
    found = [kind for kind in kinds if kind.name == args.name]
    if not found:
        raise ParameterError(f"expected a name of {', '.join(names)}, or all; got {args.name!r}")
    return found


def _inside(args: argparse.Namespace, chosen: Sequence[Kind]) -> int:
    lab = InsideLab()
    order = Order(args.quick, args.control, args.seed, tuple(args.set))
    done: list[Done] = []
    for kind in chosen:
        if len(chosen) > 1:
            print(f"{kind.name}: {kind.claim}", file=sys.stderr, flush=True)
        try:
            outcome = asyncio.run(conduct(kind, order, lab, RESULTS, addresses=lab.addresses, progress=_progress()))
        except BusyError as error:
            print(f"firstbyte {args.command}: error: {error}", file=sys.stderr)
            return 3
        except OSError as error:
            print(f"firstbyte {args.command}: error: {RESULTS}: {error.strerror or error}", file=sys.stderr)
            return 4
        done.append(_finish(args, outcome))
        if outcome.result.interrupted.startswith("interrupted"):
            break
    if len(chosen) > 1:
        _summary(args, done)
    return _exit_code([each.verdict for each in done], control=args.control)


def _finish(args: argparse.Namespace, outcome: Outcome) -> Done:
    result = outcome.result
    folder: Path | None = None
    verdict = result.verdict
    try:
        folder = archive.keep(outcome, RESULTS)
    except OSError as error:
        print(f"firstbyte {args.command}: error: cannot keep the result: {error.strerror or error}", file=sys.stderr)
        verdict = Verdict.INVALID
    if args.json:
        print(json.dumps(result.as_json(), indent=2, default=str))
    else:
        _show(outcome, folder)
    if args.control and verdict is Verdict.PASS:
        print(f"{result.name}: the control did not fail: this experiment proves nothing", file=sys.stderr)
    return Done(result.name, verdict, outcome.took, folder)


def _exit_code(verdicts: Sequence[Verdict], *, control: bool) -> int:
    """Return the worst verdict's code; of controls, one that passes is the worst."""
    if control and Verdict.PASS in verdicts:
        return 0
    codes = [each.exit_code for each in verdicts]
    return (
        next((code for code in (1, 4) if code in codes), 0)
        if not control
        else next((c for c in (4, 1) if c in codes), 0)
    )


def _outside(args: argparse.Namespace) -> int:
    words = [args.command, args.name, "--seed", str(args.seed)]
    words += [f"--{flag}" for flag in ("quick", "control", "json") if getattr(args, flag)]
    words += [word for each in args.set for word in ("--set", each)]
    with where.outside(args.command) as lab:
        lab.require_up()
        # Ctrl-C reaches that host too, which undoes what it injected and keeps what it has: wait for it.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            code = lab.run_lab(words)
        finally:
            signal.signal(signal.SIGINT, before)
        if code not in {0, 1, 2, 3, 4}:
            _undo(lab)
            code = 4
        try:
            for folder in lab.fetch_results(COPIED):
                if (folder / "report.html").exists() and args.name in {"all", folder.parent.name}:
                    print(f"report: {folder / 'report.html'}", file=sys.stderr)
        except (LabError, OSError) as error:
            print(f"firstbyte {args.command}: results stay in the lab: {error}", file=sys.stderr)
    return code


def _undo(lab: Lab) -> None:
    """The run was killed: take back what it left in the lab, as its undo list says."""
    status, text, _ = lab.capture("console", ["cat", str(RESULTS / ".undo.json")])
    if status:
        return
    for each in reversed(json.loads(text)):
        try:
            lab.call(each["host"], each["method"], each["path"], each["body"])
            print(f"  the run was killed; undone: {each['text']}", file=sys.stderr)
        except LabError as error:
            print(f"  the run was killed; could not be undone: {each['text']}: {error}", file=sys.stderr)


def _progress() -> Callable[[str], None]:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"  {time.monotonic() - began:5.1f} s  {text}", file=sys.stderr, flush=True)

    return say


def _described(kind: Kind) -> dict[str, Any]:
    return {
        "name": kind.name,
        "claim": kind.claim,
        "control": kind.control.without,
        "parameters": parameters.describe(kind.settings),
    }


def _listing(kinds: Sequence[Kind]) -> str:
    lines = []
    for kind in kinds:
        lines.append(f"{kind.name}\n  {kind.claim}\n  control: {kind.control.without}")
        for each in parameters.describe(kind.settings):
            value = each["full"] if "quick" not in each else f"{_plain(each['full'])} (quick {_plain(each['quick'])})"
            lines.append(f"    --set {each['name']}={_plain(value)}  {each.get('unit', '')}  {each['help']}".rstrip())
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)  # fmt: skip


def _show(outcome: Outcome, folder: Path | None) -> None:
    result = outcome.result
    console = Console()
    suffix = f" (control: {result.control})" if result.control else ""
    console.print(f"[bold]{result.name}: [{COLOURS[result.verdict]}]{result.verdict}[/][/bold]{escape(suffix)}  {escape(result.claim)}")  # fmt: skip
    if result.rows:
        table = Table(box=None, header_style="dim", pad_edge=False)
        table.add_column("")
        for title in ("theory", "measured", "residual"):
            table.add_column(title, justify="right")
        table.add_column("")
        for row in result.rows:
            table.add_row(row.name, report.figure(row.predicted), report.figure(row.measured.value), report.figure(row.residual), row.unit)  # fmt: skip
        console.print(table)
    table = Table(box=None, header_style="dim", pad_edge=False)
    for title in ("check", "expected", "got"):
        table.add_column(title)
    for each in (*result.checks, *(v for v in result.validity if not v.ok)):
        got = escape(each.got)
        table.add_row(escape(each.name), escape(each.expected), got if each.ok else f"[red]{got}[/]")
    if table.rows:
        console.print(table)
    if result.skipped or result.interrupted:
        console.print(escape(result.skipped or result.interrupted), style="yellow")
    for text in result.left_out:
        console.print(f"left out: {escape(text)}", style="dim")
    if folder is not None:
        console.print(f"{outcome.took:.0f} s; report: {folder / 'report.html'}", style="dim")


def _summary(args: argparse.Namespace, done: Sequence[Done]) -> None:
    """Say how all of them ended, and write the page that somebody can sign."""
    flags = f"{' --quick' if args.quick else ''}{' --control' if args.control else ''}"
    try:
        folders = [each.folder for each in done if each.folder is not None]
        page = archive.write_summary(RESULTS, f"firstbyte {args.command} all{flags}", folders)
    except OSError as error:
        print(f"firstbyte {args.command}: error: no summary: {error.strerror or error}", file=sys.stderr)
        page = None
    if args.json:
        return
    table = Table(box=None, header_style="dim", pad_edge=False)
    for title in ("experiment", "verdict", "seconds", "report"):
        table.add_column(title)
    for each in done:
        word = f"{each.verdict}{' (as it should)' if args.control and each.verdict is Verdict.FAIL else ''}"
        table.add_row(each.name, f"[{COLOURS[each.verdict]}]{word}[/]", f"{each.took:.0f}", str(each.folder or ""))
    console = Console()
    console.print(table)
    console.print(f"all of them on one page: {page}", style="dim")
