"""``firstbyte trace URL``: measured by the host `client`, drawn here."""

import argparse
import json
import re
import sys

from rich.console import Console

from firstbyte import where
from runtime import LabDownError, LabError
from waterfall import Evidence, EvidenceError, WaterfallError, check, render, save
from waterfall.measure import split

#: Seconds that a trace may take: two requests, each step with its own time-out.
TIMEOUT = 90.0
#: What the agent on `client` refuses with: the URL leads nowhere good, or that host may not see segments.
REFUSED = re.compile(r": (422|503): (.*)", re.DOTALL)
EXIT_CODES = {"422": 1, "503": 3}


def trace(args: argparse.Namespace) -> int:
    """Trace one URL; exit 1 when it leads nowhere good, 2 when it is none, 3 when segments can not be seen."""
    evidence = Evidence(args.packets, args.pcap is not None, args.keylog is not None)
    try:
        split(args.url)
        check(args.pcap, args.keylog)
    except WaterfallError as error:
        print(f"firstbyte trace: error: {error}", file=sys.stderr)
        return 2
    body = {"url": args.url, "tls": args.tls, "warm": not args.cold, "resume": not args.no_resume, **evidence.as_json()}
    with where.lab() as lab:
        try:
            found = lab.call("client", "POST", "/admin/trace", body, timeout=TIMEOUT)
        except LabDownError:
            raise
        except LabError as error:  # "client: POST /admin/trace: 422: www…: no such name"
            refused = REFUSED.search(str(error))
            if refused is None:
                raise
            print(f"firstbyte trace: {refused[2]}", file=sys.stderr)
            return EXIT_CODES[refused[1]]
        try:
            found = save(found, args.pcap, args.keylog)
        except EvidenceError as error:
            print(f"firstbyte trace: error: {error}", file=sys.stderr)
            return 2
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
