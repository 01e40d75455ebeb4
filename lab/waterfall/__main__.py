"""``python -m waterfall URL``: trace a request from here, inside or outside the lab."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from telemetry import endpoint
from waterfall.errors import BadURLError, WaterfallError
from waterfall.render import render
from waterfall.request import new_session, trace


def main(argv: list[str] | None = None) -> int:
    """Trace one URL; exit 1 when it leads nowhere good, 2 when it is none."""
    parser = argparse.ArgumentParser(
        prog="waterfall",
        description="One request, phase by phase.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m waterfall https://www.example.org/\n"
        "  python -m waterfall https://www.example.com/ --trust root.pem --server 127.0.0.1:8443 --tls 1.2 --json",
    )
    parser.add_argument("url")
    parser.add_argument("--tls", choices=["1.2", "1.3"], help="hold TLS to one version")
    parser.add_argument("--trust", type=Path, metavar="FILE", help="root certificates (PEM) instead of the system's")
    parser.add_argument("--server", type=endpoint, metavar="HOST:PORT", help="connect here instead of resolving")
    parser.add_argument("--resolver", type=endpoint, metavar="HOST:PORT", help="ask this resolver")
    parser.add_argument("--cold", action="store_true", help="only once")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    session = new_session(args.trust, args.tls, [args.resolver] if args.resolver else None)
    try:
        body = trace(args.url, session, warm=not args.cold, server=args.server)
    except WaterfallError as error:
        print(f"waterfall: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadURLError) else 1
    if args.json:
        print(json.dumps(body, indent=2))
    else:
        console = Console()
        console.print(render(body, console.width))
    return 0


if __name__ == "__main__":
    sys.exit(main())
