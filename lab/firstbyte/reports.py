"""``firstbyte report``: list stored runs, or compare two of them."""

import argparse
import contextlib
import json
import sys
from pathlib import Path

from rich.markup import escape

from drills import evidence
from experiments import archive
from experiments.estimate import number as figure
from experiments.result import headline
from firstbyte import terminal, where
from firstbyte.experiment import COPIED
from hostfiles.layout import RESULTS
from reports import write_comparison
from runtime import InsideLab, LabError, UsageError

#: Minimum table width in columns; on a narrower terminal lines wrap, so that run identifiers are never truncated.
WIDTH = 80


def report(args: argparse.Namespace) -> int:
    """List stored runs, or compare two of them."""
    results = RESULTS if InsideLab.is_here() else COPIED
    if results is COPIED:
        _fetch()
    if args.compare:
        try:
            one, other = (archive.find(results, text) for text in args.compare)
        except archive.ArchiveError as error:
            raise UsageError(str(error)) from None
        return _compare(results, one, other, as_json=args.json)
    if args.evidence:
        return _evidence(results, args.evidence, as_json=args.json)
    found = archive.runs(results)
    if args.json:
        rows = [
            {
                "run": f"{each.name}/{each.time}",
                "name": each.name,
                "time": terminal.iso(each.time),
                "verdict": each.verdict,
                "control": each.body.get("control", ""),
                "report": str(each.folder / each.page),
            }
            for each in found
        ]
        print(json.dumps(rows, indent=2))
        return 0
    if not found:
        print(f"no runs in {results} yet: `firstbyte run --list`, `firstbyte drill --list`")
        return 0
    table = terminal.table("run", "when", "verdict", " ", keys=("run", "when"))
    for each in found:
        verdict = headline(each.verdict, control=bool(each.body.get("control")))
        quick = "quick" if each.body.get("quick") else ""
        table.add_row(f"{each.name}/{each.time}", terminal.date(each.time), verdict, quick)
    console = terminal.console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    print(f"report of a run: {results}/RUN/report.html; all runs: {results / 'index.html'}")
    return 0


def _evidence(results: Path, run: str, *, as_json: bool) -> int:
    """Verify and print the signed manifest of a drill's run; return 1 if the verification fails."""
    try:
        body = evidence.verify(archive.find(results, run).folder)
    except archive.ArchiveError as error:
        raise UsageError(str(error)) from None
    except evidence.EvidenceError as error:
        print(f"firstbyte report: {error}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(body, indent=2))
        return 0
    print(f"{body['drill']} {body['time']}: {headline(body['verdict'], control=bool(body['control']))}")
    print(f"{len(body['files'])} files unchanged, signed with the key {body['public_key']}")
    for check in body["checks"]:
        print(f"  {'ok' if check['ok'] else 'FAILED':7}{check['name']}  {', '.join(check['sections'])}".rstrip())
    print(f"sections of the {body['standard']}:" if body["sections"] else "no check concerns a section of the standard")
    for number, title in body["sections"].items():
        print(f"  {number:8}{title}")
    return 0


def _compare(results: Path, one: archive.StoredRun, other: archive.StoredRun, *, as_json: bool) -> int:
    rows = archive.compare(one, other)
    if as_json:
        runs = [{"name": each.name, "time": terminal.iso(each.time), "verdict": each.verdict} for each in (one, other)]
        print(json.dumps({"runs": runs, "rows": rows}, indent=2))
        return 0
    titles = ("theory", *(f"{each.name} {terminal.date(each.time)}" for each in (one, other)), "change")
    table = terminal.table("", *titles, " ", numbers=titles)
    for row in rows:
        change = "" if row["change"] is None else f"{row['change']:+.1%}"
        meet = {None: "", True: "intervals overlap", False: "[bold]differs[/]"}[row["intervals_meet"]]
        measured = [figure(value) for value in row["measured"]]
        table.add_row(escape(row["name"]), figure(row["predicted"][0]), *measured, change, f"{row['unit']} {meet}")
    terminal.console().print(table)
    try:
        print(f"page: {write_comparison(results, one, other)}")
    except OSError as error:
        print(f"firstbyte report: no page in {results}: {error.strerror}", file=sys.stderr)
    return 0


def _fetch() -> None:
    """Copy new results from a running lab; without one, only results that were copied earlier are listed."""
    with contextlib.suppress(LabError), where.outside("report") as lab:
        lab.require_up()
        lab.fetch_results(COPIED)
