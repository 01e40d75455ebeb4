"""``python -m waterfall.agent``: a service that traces requests from its own host, which is normally `client`.

``POST /admin/trace {"url": …, "tls": "1.2"|"1.3"|null, "dns": "udp"|"tcp"|"tls"|"https", …}``
returns a trace.  With ``"packets"``, ``"pcap"`` or ``"keylog": true``, the trace includes decoded packets, a capture or
TLS secrets.

``POST /admin/churn {"address": …, "port": 80, "rate": 96, "seconds": 12, "ports": [33000, 33023], "sources": 2}``
opens and closes connections.  It returns the outcome of each connection and this host's TIME-WAIT settings.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hostfiles.layout import TRUST_ANCHOR
from stub.transport import PORTS
from telemetry import AdminError, Request, Telemetry, add_arguments, log
from waterfall import lab
from waterfall.churn import Churn, churn
from waterfall.errors import BadURLError, NoFramesError, WaterfallError
from waterfall.evidence import KEYLOG, PCAP, Evidence
from waterfall.request import new_session, trace

logger = log.get("waterfall")
#: Boolean parameters of a trace request, with their default values.
FLAGS = {"warm": True, "resume": True, "packets": False, "pcap": False, "keylog": False}
#: Limits of the parameters of a churn request, whose purpose is to exhaust ports, not servers.
CHURN = {"port": (1, 65535), "rate": (1, 1000), "seconds": (1, 600)}


class Agent:
    """The agent's admin requests.  Only one trace runs at a time, because concurrent traces would affect each other."""

    def __init__(self, telemetry: Telemetry, trust: Path | None, wan: str, sources: Sequence[str] = ()) -> None:
        self.trust, self.wan = trust, wan
        #: Addresses of this host that churn may use as source addresses.
        self.sources = tuple(sources)
        self.last: dict[str, Any] | None = None
        self._lock = asyncio.Lock()
        self._count = telemetry.metrics.counter("firstbyte_traces_total", "Traces by outcome", "outcome")
        telemetry.route("POST", "/admin/trace", self.run)
        telemetry.route("GET", "/admin/trace", self.show)
        telemetry.route("POST", "/admin/churn", self.churn)

    async def run(self, request: Request) -> dict[str, Any]:
        """Trace the URL in the request body and return the trace."""
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
        dns = body.get("dns", "udp")
        if dns not in PORTS:
            raise AdminError(400, f"expected dns to be one of {', '.join(PORTS)}; got {dns!r}")
        session = new_session(self.trust, tls, resume=flags["resume"], dns=dns)
        evidence = Evidence(flags["packets"], flags["pcap"], flags["keylog"])
        async with self._lock:
            try:
                with session.stub:
                    found = await asyncio.to_thread(
                        trace, body["url"], session, warm=flags["warm"], wan=self.wan, evidence=evidence
                    )
            except WaterfallError as error:
                self._count.inc(outcome=error.phase)
                # 422: the admin request is valid, but tracing its URL failed.
                status = {BadURLError: 400, NoFramesError: 503}.get(type(error), 422)
                raise AdminError(status, str(error)) from None
        self._count.inc(outcome="ok")
        self.last = {key: value for key, value in found.items() if key not in {PCAP, KEYLOG}}
        logger.info("traced", url=body["url"], ttfb_ms=found["cold"]["ttfb_ms"])
        return found

    async def churn(self, request: Request) -> dict[str, Any]:
        """Open and close connections from a range of source ports; return the outcome of each."""
        order = self._ordered(request.json())
        attempts = await churn(order)
        failed = sum(1 for each in attempts if each.error)
        logger.info("churned", to=order.to[0], rate=order.rate, attempts=len(attempts), failed=failed)
        return {
            "attempts": attempts,
            "tw_reuse": _setting("tcp_tw_reuse"),
            "tw_reuse_delay_ms": _setting("tcp_tw_reuse_delay"),
        }

    def _ordered(self, body: Any) -> Churn:
        """Validate the body of a churn request.

        Raises:
            AdminError: 400, a parameter is missing or invalid.
        """
        if not isinstance(body, dict) or not isinstance(body.get("address"), str):
            raise AdminError(
                400, f'expected {{"address": …, "port", "rate", "seconds", "ports": [first, last]}}, got {body!r}'
            )
        for name, (low, high) in CHURN.items():
            value = body.get(name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
                raise AdminError(400, f"expected {name} from {low} to {high}, got {value!r}")
        match body.get("ports"):
            case [int(first), int(last)] if 1024 <= first <= last <= 65535:
                window = (first, last)
            case other:
                raise AdminError(400, f"expected ports as [first, last] from 1024 to 65535, got {other!r}")
        count = body.get("sources", 0)
        if not isinstance(count, int) or not 0 <= count <= len(self.sources):
            raise AdminError(400, f"expected sources from 0 to {len(self.sources)}, got {count!r}")
        to = (body["address"], int(body["port"]))
        return Churn(to, float(body["rate"]), float(body["seconds"]), window, self.sources[:count])

    def show(self, _: Request) -> dict[str, Any]:
        """Return the last trace."""
        if self.last is None:
            raise AdminError(404, "there is no trace yet: POST /admin/trace runs one")
        return self.last


def main(argv: list[str] | None = None) -> int:
    """Run the agent until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="waterfall.agent",
        description="Traces requests from this host.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m waterfall.agent --admin 0.0.0.0:9900 --token-file /srv/token/admin.token\n"
        "  python -m waterfall.agent --admin 127.0.0.1:9900 --trust root.pem",
    )
    parser.add_argument("--trust", type=Path, default=TRUST_ANCHOR, metavar="FILE", help="root certificate (PEM)")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="source address that a churn may use; repeatable",
    )
    parser.add_argument("--wan", default=lab.WAN, metavar="URL", help="admin port of the router")
    add_arguments(parser)
    args = parser.parse_args(argv)
    log.configure("waterfall", args.log_level)
    telemetry = Telemetry("waterfall")
    Agent(telemetry, args.trust, args.wan, args.source)
    asyncio.run(_run(args, telemetry))
    return 0


def _setting(name: str) -> str:
    """Return the value of an IPv4 sysctl of this host, or "" if the kernel does not have it."""
    path = Path("/proc/sys/net/ipv4") / name
    return path.read_text(encoding="ascii").strip() if path.exists() else ""


async def _run(args: argparse.Namespace, telemetry: Telemetry) -> None:
    async with telemetry.serving(args):
        telemetry.health.set("agent", ok=True, detail=f"trusts {args.trust}")
        await telemetry.until_stopped()


if __name__ == "__main__":
    sys.exit(main())
