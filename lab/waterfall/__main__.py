"""``python -m waterfall URL``: trace a request from this host, inside or outside the lab."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from telemetry import endpoint
from waterfall.errors import BadURLError, EvidenceError, NoFramesError, WaterfallError
from waterfall.evidence import Evidence, check, save
from waterfall.measure import TIMEOUT
from waterfall.render import render
from waterfall.request import new_session, trace

#: Exit codes by exception; the default is 1.  2: usage error; 3: no lab to capture packets in.
EXIT_CODES = {BadURLError: 2, EvidenceError: 2, NoFramesError: 3}


def seconds(text: str) -> float:
    """Parse a timeout in seconds, more than 0 and at most 600; for use as an argparse type."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 600:
        raise argparse.ArgumentTypeError(f"expected seconds between 0 and 600, got {text!r}")
    return value


def main(argv: list[str] | None = None) -> int:
    """Trace one URL and print the trace; return the exit code (1 if the request fails)."""
    parser = argparse.ArgumentParser(
        prog="waterfall",
        description="One request, phase by phase.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m waterfall https://www.example.org/\n"
        "  python -m waterfall https://www.example.com/ --trust root.pem --server 127.0.0.1:8443 --tls 1.2 --json",
    )
    parser.add_argument("url")
    parser.add_argument("--tls", choices=["1.2", "1.3"], help="allow only this TLS version")
    parser.add_argument("--trust", type=Path, metavar="FILE", help="root certificates (PEM) instead of the system's")
    parser.add_argument("--server", type=endpoint, metavar="HOST:PORT", help="connect here instead of resolving")
    parser.add_argument("--resolver", type=endpoint, metavar="HOST:PORT", help="ask this resolver")
    parser.add_argument("--cold", action="store_true", help="trace only the cold request")
    parser.add_argument("--no-resume", action="store_true", help="do not resume TLS sessions")
    parser.add_argument("--timeout", type=seconds, default=TIMEOUT, metavar="S", help="timeout of each step")
    parser.add_argument("--packets", action="store_true", help="show every segment, decoded (in the lab)")
    parser.add_argument("--pcap", type=Path, metavar="FILE", help="write the packets at the client's end (in the lab)")
    parser.add_argument("--keylog", type=Path, metavar="FILE", help="write the TLS secrets")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    session = new_session(args.trust, args.tls, [args.resolver] if args.resolver else None, resume=not args.no_resume)
    session.timeout = args.timeout
    evidence = Evidence(args.packets, args.pcap is not None, args.keylog is not None)
    try:
        check(args.pcap, args.keylog)
        body = trace(args.url, session, warm=not args.cold, server=args.server, evidence=evidence)
        body = save(body, args.pcap, args.keylog)
    except WaterfallError as error:
        print(f"waterfall: error: {error}", file=sys.stderr)
        return EXIT_CODES.get(type(error), 1)
    if args.json:
        print(json.dumps(body, indent=2))
    else:
        console = Console()
        console.print(render(body, console.width))
    return 0


if __name__ == "__main__":
    sys.exit(main())
