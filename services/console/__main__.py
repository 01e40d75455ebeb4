"""``python -m console``: serve a read-only page about the lab, and print the first trace."""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from rich.console import Console

from console import hosts, opening, reports
from console.feed import Feed
from console.poll import Poller
from console.server import Site
from console.state import State
from hostfiles.layout import RESULTS
from telemetry import AdminError, Request, Telemetry, add_arguments, endpoint, log
from waterfall import render

#: Interval between reads of the results folder, in seconds; experiments take minutes.
REPORTS_EVERY = 5.0
#: How long the console waits at shutdown for open connections to finish, in seconds.
DRAIN = 2.0
#: Width of the printed trace in columns; Docker Compose prefixes each line with the host name.
LOG_COLUMNS = 100

logger = log.get("console")


def arguments() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    parser = argparse.ArgumentParser(
        prog="console",
        description="A read-only page about the lab: what is up, what is about to expire, what requests cost.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  python -m console --listen 127.0.0.1:8080 --hosts lab/etc/hosts.toml --token-file /srv/token/admin.token
  python -m console --listen 0.0.0.0:8080 --hosts /srv/etc/hosts.toml --trace https://www.example.com/ \\
      --tracer http://198.19.1.10:9900 --admin 0.0.0.0:9900 --token-file /srv/token/admin.token""",
    )
    parser.add_argument(
        "--listen",
        type=endpoint,
        default=("127.0.0.1", 8080),
        metavar="HOST:PORT",
        help="serve the page here (default 127.0.0.1:8080)",
    )
    parser.add_argument("--hosts", type=Path, required=True, metavar="FILE", help="the hosts to poll (TOML)")
    parser.add_argument(
        "--results",
        type=Path,
        default=RESULTS,
        metavar="DIR",
        help="folder of reports, served below /results/ (default %(default)s)",
    )
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=2.0,
        metavar="S",
        help="seconds between two polls of every host (default 2)",
    )
    parser.add_argument("--trace", metavar="URL", help="trace this URL at start, and print the result and what to try")
    parser.add_argument(
        "--tracer", metavar="URL", help="admin port of the tracing agent, such as http://198.19.1.10:9900"
    )
    add_arguments(parser)
    return parser


async def serve(args: argparse.Namespace, declared: hosts.Hosts) -> int:
    """Poll hosts and serve the page until SIGTERM; return the exit code."""
    telemetry = Telemetry("console")
    state = State(declared, time.time())
    feed = Feed()
    site = Site(state, feed, telemetry.clock, args.results)
    pages = telemetry.metrics.gauge("firstbyte_console_pages", "Pages that are open")
    telemetry.metrics.before_render(lambda: pages.set(feed.clients))

    def on_round() -> None:
        telemetry.health.set("poll", ok=True, detail=f"{len(declared.hosts)} hosts every {args.interval:g} s")
        site.publish_state()

    def on_trace(trace: dict[str, Any]) -> None:
        state.take_trace(trace, telemetry.clock.time())
        site.publish_trace()

    def take_trace(request: Request) -> dict[str, Any]:
        trace = request.json()
        if (problem := opening.problem_of(trace)) is not None:
            raise AdminError(400, problem)
        on_trace(trace)
        return {"shown": trace["url"]}

    def admit(request: Request) -> dict[str, Any]:
        if not (host := hosts.joined(request.json(), declared)):
            raise AdminError(400, f"expected name, address, fqdn and region of a new host, got {request.body[:200]!r}")
        state.admit(host)
        return {"hosts": len(state.hosts.hosts)}

    def dismiss(request: Request) -> dict[str, Any]:
        if (name := request.params["name"]) not in {host.name for host in declared.hosts}:
            state.dismiss(name)
        return {"hosts": len(state.hosts.hosts)}

    telemetry.route("POST", "/admin/traces", take_trace)
    telemetry.route("POST", "/admin/hosts", admit)
    telemetry.route("DELETE", "/admin/hosts/{name}", dismiss)
    poller = Poller(
        state,
        args.token_file,
        args.interval,
        on_round=on_round,
        on_failure=lambda why: telemetry.health.set("poll", ok=False, detail=why),
    )
    runner = web.AppRunner(site.application(), access_log=None, handle_signals=False, shutdown_timeout=DRAIN)
    await runner.setup()
    async with telemetry.serving(args):
        try:
            listener = web.TCPSite(runner, *args.listen)
            await listener.start()
        except OSError as error:
            host, port = args.listen
            reason = os.strerror(error.errno) if error.errno else error.strerror
            print(f"console: error: cannot listen on {host}:{port}: {reason}", file=sys.stderr)
            await runner.cleanup()
            return 2
        host, port = runner.addresses[0][:2]
        print(f"listening on {host}:{port} (http)", flush=True)
        logger.info("started", hosts=len(declared.hosts), interval_s=args.interval, results=str(args.results))
        telemetry.health.set("page", ok=True, detail=f"{host}:{port}")
        tasks = [asyncio.create_task(poller.run()), asyncio.create_task(_watch_reports(state, args.results))]
        if args.trace:
            tracer = opening.Tracer(args.tracer, args.token_file)
            tasks.append(asyncio.create_task(opening.show(tracer, args.trace, _draw, on_trace)))
        await telemetry.until_stopped()
        feed.close()
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()
    return 0


def _draw(trace: Mapping[str, Any]) -> None:
    """Print *trace* with a fixed width, because standard output is a log rather than a terminal."""
    screen = Console(width=LOG_COLUMNS)
    screen.print("", render(trace, LOG_COLUMNS), "", sep="\n")
    sys.stdout.flush()


async def _watch_reports(state: State, results: Path) -> None:
    while True:
        state.take_reports(await asyncio.to_thread(reports.latest, results))
        await asyncio.sleep(REPORTS_EVERY)  # polls: no event signals a change of the folder


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.2 <= value <= 60:
        raise argparse.ArgumentTypeError(f"expected 0.2 to 60 seconds, got {text!r}")
    return value


def main(argv: list[str] | None = None) -> int:
    """Run the service; return the exit code."""
    parser = arguments()
    args = parser.parse_args(argv)
    if bool(args.trace) != bool(args.tracer):
        parser.error("expected --trace URL and --tracer URL together")
    log.configure("console", args.log_level)
    try:
        declared = hosts.load(args.hosts)
    except hosts.HostsFileError as error:
        print(f"console: error: {error}", file=sys.stderr)
        return 2
    return asyncio.run(serve(args, declared))


if __name__ == "__main__":
    sys.exit(main())
