"""``firstbyte trace URL``: let the host `client` measure one request, and draw the result."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import reports
from firstbyte import terminal, where
from runtime import LabDownError, LabError, UsageError
from waterfall import Evidence, EvidenceError, WaterfallError, check, render, save
from waterfall.measure import split

#: Maximum duration of a trace in seconds: two requests, each step with its own time-out.
TIMEOUT = 90.0
#: Maximum number of segments in a ladder diagram.
DRAWN = 200
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
    evidence = Evidence(args.packets or args.svg is not None, args.pcap is not None, args.keylog is not None)
    try:
        split(args.url)
        check(args.pcap, args.svg, args.keylog)
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
            if args.svg is not None:
                _draw(args.svg, found)
                if not args.packets:
                    found = {**found, "cold": {**found["cold"], "packets": None}}
                    found["warm"] = {**found["warm"], "packets": None} if found.get("warm") else None
        except EvidenceError as error:
            raise UsageError(str(error)) from None
        _show_on_console(lab, found)
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        console = terminal.console()
        console.print(render(found, console.width))
    return 0


def _draw(path: Path, found: dict[str, Any]) -> None:
    """Write the ladder diagram of the cold request to *path*.

    Raises:
        EvidenceError: no packet crossed the router, or the file cannot be written.
    """
    cold = found["cold"]
    packets = cold["packets"]
    if not packets["packets"]:
        raise EvidenceError("nothing to draw: no packet of this request crossed wan")
    predicted = cold.get("ttfb_predicted_ms")
    rows = packets["packets"]
    parts = [
        f"First byte after {cold['ttfb_ms']:.1f} ms" + ("" if predicted is None else f", predicted {predicted:.1f} ms"),
        f"{packets['round_trips']} round trips to the server before it. Dots are TCP states. Idle times are shortened.",
    ]
    if len(rows) > DRAWN:
        parts.insert(0, f"The first {DRAWN} of {len(rows):,} packets")
    caption = "; ".join(parts)
    try:
        path.write_text(
            reports.ladder({**packets, "packets": rows[:DRAWN]}, f"{found['url']}, packet by packet", caption)
        )
    except OSError as error:
        raise EvidenceError(f"cannot write {path}: {error.strerror}") from None


def _show_on_console(lab: where.Way, found: dict[str, Any]) -> None:
    """Send the trace to the console for display; a console that is not running is ignored."""
    try:
        lab.call("console", "POST", "/admin/traces", found, timeout=3.0)
    except LabError:
        return
