"""``python -m waterfall.agent``: traces requests from where it stands; the host `client` runs it.

``POST /admin/trace {"url": …, "tls": "1.2"|"1.3"|null, "warm": true, "resume": true}`` answers with the trace; with
``"packets"``, ``"pcap"`` or ``"keylog": true`` it brings those along.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

from telemetry import AdminError, Request, Telemetry, add_arguments, log
from waterfall import lab
from waterfall.errors import BadURLError, NoFramesError, WaterfallError
from waterfall.evidence import KEYLOG, PCAP, Evidence
from waterfall.request import new_session, trace

logger = log.get("waterfall")
#: What a request may say besides the URL and the version of TLS.
FLAGS = {"warm": True, "resume": True, "packets": False, "pcap": False, "keylog": False}
DEFAULT_TRUST = Path("/srv/trust/root.pem")


class Agent:
    """Runs one trace at a time: two would disturb each other."""

    def __init__(self, telemetry: Telemetry, trust: Path | None, wan: str) -> None:
        self.trust, self.wan = trust, wan
        self.last: dict[str, Any] | None = None
        self._lock = asyncio.Lock()
        self._count = telemetry.metrics.counter("firstbyte_traces_total", "Traces by outcome", "outcome")
        telemetry.route("POST", "/admin/trace", self.run)
        telemetry.route("GET", "/admin/trace", self.show)

    async def run(self, request: Request) -> dict[str, Any]:
        """Trace one URL."""
        body = request.json()
        if not isinstance(body, dict) or not isinstance(body.get("url"), str):
            raise AdminError(
                400, f'expected {{"url": "https://…", "tls": "1.2" or "1.3" or null, "warm": true}}, got {body!r}'
            )
        tls = body.get("tls")
        if tls not in {None, "1.2", "1.3"}:
            raise AdminError(400, f'expected tls "1.2", "1.3" or null; got {tls!r}')
        flags = {name: body.get(name, default) for name, default in FLAGS.items()}
        for name, value in flags.items():
            if not isinstance(value, bool):
                raise AdminError(400, f"expected {name} to be true or false, got {value!r}")
        session = new_session(self.trust, tls, resume=flags["resume"])
        evidence = Evidence(flags["packets"], flags["pcap"], flags["keylog"])
        async with self._lock:
            try:
                found = await asyncio.to_thread(
                    trace, body["url"], session, warm=flags["warm"], wan=self.wan, evidence=evidence
                )
            except WaterfallError as error:
                self._count.inc(outcome=error.phase)
                # 422: the request to us was right; the URL leads nowhere good.
                status = {BadURLError: 400, NoFramesError: 503}.get(type(error), 422)
                raise AdminError(status, str(error)) from None
        self._count.inc(outcome="ok")
        self.last = {key: value for key, value in found.items() if key not in {PCAP, KEYLOG}}
        logger.info("traced", url=body["url"], ttfb_ms=found["cold"]["ttfb_ms"])
        return found

    def show(self, _: Request) -> dict[str, Any]:
        """Return the last trace."""
        if self.last is None:
            raise AdminError(404, "nothing was traced yet")
        return self.last


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="waterfall.agent",
        description="Traces requests from this host.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m waterfall.agent --admin 0.0.0.0:9900 --token-file /srv/token/admin.token\n"
        "  python -m waterfall.agent --admin 127.0.0.1:9900 --trust root.pem",
    )
    parser.add_argument("--trust", type=Path, default=DEFAULT_TRUST, metavar="FILE", help="root certificate (PEM)")
    parser.add_argument("--wan", default=lab.WAN, metavar="URL", help="admin port of the router")
    add_arguments(parser)
    args = parser.parse_args(argv)
    log.configure("waterfall", args.log_level)
    telemetry = Telemetry("waterfall")
    Agent(telemetry, args.trust, args.wan)
    asyncio.run(_run(args, telemetry))
    return 0


async def _run(args: argparse.Namespace, telemetry: Telemetry) -> None:
    async with telemetry.serving(args):
        telemetry.health.set("agent", ok=True, detail=f"trusts {args.trust}")
        await telemetry.until_stopped()


if __name__ == "__main__":
    sys.exit(main())
