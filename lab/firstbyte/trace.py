"""``firstbyte trace URL``: measured by the host `client`, drawn here."""

import argparse
import json
import sys

from rich.console import Console

from firstbyte import where
from runtime import LabDownError, LabError
from waterfall import BadURLError, render
from waterfall.measure import split

#: Seconds that a trace may take: two requests, each step with its own time-out.
TIMEOUT = 90.0


def trace(args: argparse.Namespace) -> int:
    """Trace one URL; exit 1 when it leads nowhere good, 2 when it is none."""
    try:
        split(args.url)
    except BadURLError as error:
        print(f"firstbyte trace: error: {error}", file=sys.stderr)
        return 2
    body = {"url": args.url, "tls": args.tls, "warm": not args.cold}
    with where.lab() as lab:
        try:
            found = lab.call("client", "POST", "/admin/trace", body, timeout=TIMEOUT)
        except LabDownError:
            raise
        except LabError as error:  # "client: POST /admin/trace: 422: www…: no such name"
            print(f"firstbyte trace: {str(error).rpartition(': 422: ')[2]}", file=sys.stderr)
            return 1
        _show_on_console(lab, found)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        console = Console()
        console.print(render(found, console.width))
    return 0


def _show_on_console(lab: where.Way, found: dict[str, object]) -> None:
    """Let the console's page show the trace, too; a console that is down does not stop us."""
    try:
        lab.call("console", "POST", "/admin/traces", found, timeout=3.0)
    except LabError:
        return
