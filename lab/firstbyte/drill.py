"""``firstbyte drill NAME``: runs inside the lab; outside it starts a container of the service `lab` and fetches results."""

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from drills import DRILLS, UnknownDrillError, find
from experiments import Result, Verdict, report, write
from firstbyte import where
from runtime import InsideLab
from runtime.docker_lab import fetch_results

RESULTS = Path("/srv/results")


def drill(args: argparse.Namespace) -> int:
    """Run one drill; the exit code is its verdict."""
    if args.list:
        print(json.dumps([{"name": d.name, "claim": d.claim} for d in DRILLS]) if args.json else _listing())
        return 0
    if args.name is None:
        print("firstbyte drill: error: expected a name, or --list", file=sys.stderr)
        return 2
    try:
        found = find(args.name)
    except UnknownDrillError as error:
        print(f"firstbyte drill: error: {error}", file=sys.stderr)
        return 2
    if args.rate is not None and not 1 <= args.rate <= 2000:
        print(f"firstbyte drill: error: expected --rate from 1 to 2000, got {args.rate:g}", file=sys.stderr)
        return 2
    if not InsideLab.is_here():
        return _outside(args)
    lab = InsideLab()
    lab.call("edge", "GET", "/admin/certificate")  # says at once when the lab is not up

    async def run() -> tuple[Result, Path]:
        task = asyncio.ensure_future(
            found.run(lab, quick=args.quick, negative=args.control, rate=args.rate, progress=_progress)
        )
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, task.cancel)
        result, requests, serials = await task
        return result, write(result, report.render(result, requests, serials), RESULTS)

    result, folder = asyncio.run(run())
    if args.json:
        print(json.dumps(result.as_json(), indent=2))
    else:
        _show(result, folder)
    if args.control and result.verdict is Verdict.PASS:
        print("the control did not fail: this drill proves nothing", file=sys.stderr)
    return result.verdict.exit_code


def _outside(args: argparse.Namespace) -> int:
    flags = [flag for flag in ("quick", "control", "json") if getattr(args, flag)]
    words = ["drill", args.name, *(f"--{flag}" for flag in flags)]
    if args.rate is not None:
        words += ["--rate", str(args.rate)]
    with where.docker_lab("drill") as lab:
        lab.require_up()
        code = lab.run_lab(words)
        for folder in fetch_results(lab, Path("results")):
            print(f"report: {folder / 'report.html'}", file=sys.stderr)
    return code


def _progress(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _listing() -> str:
    return "\n".join(f"{each.name:24}{each.claim}" for each in DRILLS)


def _show(result: Result, folder: Path) -> None:
    colours = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INVALID: "yellow", Verdict.SKIPPED: "yellow"}
    console = Console()
    suffix = " (control)" if result.parameters.get("control") else ""
    console.print(f"[bold]{result.name}{suffix}: [{colours[result.verdict]}]{result.verdict}[/][/bold]  {result.claim}")
    table = Table(box=None, header_style="dim", pad_edge=False)
    for title in ("check", "expected", "got"):
        table.add_column(title)
    for each in (*result.checks, *result.validity):
        table.add_row(each.name, each.expected, f"{each.got}" if each.ok else f"[red]{each.got}[/]")
    console.print(table)
    m = result.measurement
    console.print(
        f"{m['sent']} requests, {m['lost']} lost; p99 before {m['p99_before_ms']} ms, during renewals {m['p99_during_ms']} ms"
    )
    console.print(f"report: {folder / 'report.html'}", style="dim")
