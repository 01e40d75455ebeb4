"""``firstbyte trace URL``: let the host `client` measure one request, and draw the result."""

import argparse
import json
import re

from firstbyte import terminal, where
from runtime import LabDownError, LabError, UsageError
from waterfall import Evidence, EvidenceError, WaterfallError, check, render, save
from waterfall.measure import split

#: Maximum duration of a trace in seconds: two requests, each step with its own time-out.
TIMEOUT = 90.0
#: Error replies of the agent on `client`: 422 if the URL cannot be fetched, 503 if the host cannot capture packets.
REFUSED = re.compile(r": (422|503): (.*)", re.DOTALL)


class UnreachableError(LabError):
    """The URL could not be fetched: unknown name, no response, or a certificate that fails verification."""

    exit_code = 1


def trace(args: argparse.Namespace) -> int:
    """Trace one URL and print its waterfall.

    Raises:
        UsageError: the URL cannot be traced, or an output file (capture or key log) cannot be written.
        UnreachableError: the URL could not be fetched.
        LabError: the lab is not running, or packets should be captured but cannot be.
    """
    evidence = Evidence(args.packets, args.pcap is not None, args.keylog is not None)
    try:
        split(args.url)
        check(args.pcap, args.keylog)
    except WaterfallError as error:
        raise UsageError(str(error)) from None
    body = {"url": args.url, "tls": args.tls, "dns": args.dns, "warm": not args.cold, "resume": not args.no_resume}
    body |= evidence.as_json()
    with where.lab() as lab:
        try:
            found = lab.call("client", "POST", "/admin/trace", body, timeout=TIMEOUT)
        except LabDownError:
            raise
        except LabError as error:  # for example "client: POST /admin/trace: 422: www…: no such name"
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
    """Send the trace to the console for display; a console that is not running is ignored."""
    try:
        lab.call("console", "POST", "/admin/traces", found, timeout=3.0)
    except LabError:
        return
