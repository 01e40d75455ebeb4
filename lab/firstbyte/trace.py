"""``firstbyte trace URL``: the host `client` measures, this command draws."""

import argparse
import json
import re

from firstbyte import terminal, where
from runtime import LabDownError, LabError, UsageError
from waterfall import Evidence, EvidenceError, WaterfallError, check, render, save
from waterfall.measure import split

#: Seconds that a trace may take: two requests, each step with its own time-out.
TIMEOUT = 90.0
#: How the agent on `client` refuses: 422, the URL could not be fetched; 503, that host may not capture packets.
REFUSED = re.compile(r": (422|503): (.*)", re.DOTALL)


class UnreachableError(LabError):
    """The URL could not be fetched: no such name, no answer, a certificate that does not verify."""

    exit_code = 1


def trace(args: argparse.Namespace) -> int:
    """Trace one URL.

    Raises:
        UsageError: it is no URL that can be traced, or a file for evidence cannot be written.
        UnreachableError: it could not be fetched.
        LabError: packets were asked for and cannot be captured, or the lab is not up.
    """
    evidence = Evidence(args.packets, args.pcap is not None, args.keylog is not None)
    try:
        split(args.url)
        check(args.pcap, args.keylog)
    except WaterfallError as error:
        raise UsageError(str(error)) from None
    body = {"url": args.url, "tls": args.tls, "warm": not args.cold, "resume": not args.no_resume, **evidence.as_json()}
    with where.lab() as lab:
        try:
            found = lab.call("client", "POST", "/admin/trace", body, timeout=TIMEOUT)
        except LabDownError:
            raise
        except LabError as error:  # "client: POST /admin/trace: 422: www…: no such name"
            if refused := REFUSED.search(str(error)):
                raise (UnreachableError if refused[1] == "422" else LabError)(refused[2]) from None
            raise
        try:
            found = save(found, args.pcap, args.keylog)
        except EvidenceError as error:
            raise UsageError(str(error)) from None
        _show_on_console(lab, found)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        console = terminal.console()
        console.print(render(found, console.width))
    return 0


def _show_on_console(lab: where.Way, found: dict[str, object]) -> None:
    """Send the trace to the console's page; whether the console is up does not matter here."""
    try:
        lab.call("console", "POST", "/admin/traces", found, timeout=3.0)
    except LabError:
        return
