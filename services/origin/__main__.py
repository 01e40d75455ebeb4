"""Command line of the origin server, ``python -m origin``."""

import argparse
import asyncio
import os
import ssl
import sys
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

import uvloop
from aiohttp import web

from origin.application import Options, Parts, answer_challenges, build, request_counter
from origin.database import Database, DatabaseError
from origin.keyring import Keyring, KeyringError
from origin.notes import Notes
from origin.operating import crash_switch, export, open_
from renewal import Agent, RehearsalAgent, add_arguments, from_args
from telemetry import Telemetry, endpoint, log
from telemetry import add_arguments as add_telemetry_arguments
from telemetry.metrics import Counter
from telemetry.tap import Tap

logger = log.get("origin")
#: Keep-alive time-out in seconds. It is longer than the edge's (60 s), so that the edge closes first.
KEEPALIVE = 75.0
#: Maximum time for requests in flight to finish at shutdown, in seconds.
DRAIN = 8.0


def main(argv: list[str] | None = None) -> int:
    """Run the origin server until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="origin",
        description="An origin server: a catalog or a newsroom, and paths for measurements.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m origin --name local --kind catalog --plain 127.0.0.1:9000\n"
        "  python -m origin --name catalog-1.example.com --kind catalog --mtls 0.0.0.0:8443 --http 0.0.0.0:80"
        " --acme https://ca.example.com/directory --tls-dir /srv/tls --trust /srv/trust/root.pem"
        " --cert-name catalog-1.example.com",
    )
    parser.add_argument("--name", required=True, help="its name in responses")
    parser.add_argument("--kind", choices=["catalog", "news"], required=True)
    for flag, what in (
        ("--mtls", "serve HTTPS to clients with a certificate"),
        ("--https", "serve HTTPS to any client"),
        ("--plain", "serve HTTP to any client; needs no certificate"),
        ("--http", "answer http-01 challenges; with --https, also serve the pages"),
    ):
        parser.add_argument(flag, type=endpoint, metavar="HOST:PORT", help=what)
    accepted = "name of a client that --mtls accepts (repeatable)"
    parser.add_argument("--client-name", action="append", default=[], metavar="NAME", help=accepted)
    parser.add_argument(
        "--keepalive", type=float, default=KEEPALIVE, metavar="SECONDS", help="idle time-out (default 75)"
    )
    parser.add_argument("--database", type=Path, metavar="FILE", help="database file of a catalog; default: in memory")
    parser.add_argument(
        "--note-keys", type=Path, metavar="FILE", help="keys of the notes in the database; default: in memory"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the delays of /delay/exp (default 0)")
    add_arguments(parser)
    add_telemetry_arguments(parser)
    args = parser.parse_args(argv)
    if not (args.mtls or args.https or args.plain):
        parser.error("expected at least one of --mtls, --https and --plain")
    if args.database and not args.note_keys:
        parser.error("expected --note-keys with --database: notes cannot be read without the keys that wrote them")
    log.configure("origin", args.log_level)
    telemetry = Telemetry("origin")
    settings = from_args(parser, args) if args.mtls or args.https else None
    # An origin is never a TLS client, so its certificate does not need the clientAuth extended key usage.
    agent = RehearsalAgent(replace(settings, as_client=False), telemetry) if settings is not None else None
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(args, telemetry, agent))
    except OSError as error:
        print(f"origin: error: {error}", file=sys.stderr)
        return 2
    except KeyringError as error:
        print(f"origin: error: {error}", file=sys.stderr)
        return 2
    except DatabaseError as error:
        print(f"origin: error: {args.database}: expected a database that can be written: {error}", file=sys.stderr)
        return 2
    return 0


async def _run(args: argparse.Namespace, telemetry: Telemetry, agent: Agent | None) -> None:
    options = Options(args.name, args.kind, tuple(args.client_name), args.seed)
    sites, requests = Sites(telemetry, args.keepalive), request_counter(telemetry)
    database = Database(args.database) if args.kind == "catalog" else None
    notes = Notes(database, Keyring(args.note_keys)) if database is not None else None
    revoked: Container[int] = agent.check_revocations() if agent is not None and args.mtls else frozenset()
    parts = Parts(database, before_reply=crash_switch(telemetry), notes=notes, tap=Tap(telemetry), revoked=revoked)
    async with telemetry.serving(args):
        try:
            if database is not None and notes is not None:
                await open_(database, notes)
                export(telemetry, database, notes)
            if args.plain:
                await sites.start("plain", build(options, requests, mutual=False, parts=parts), args.plain)
            if agent is not None:
                if args.http:  # start HTTP first: the CA validates over HTTP before a certificate exists
                    # Like the edge, serve the pages of --https over plain HTTP as well. The pages of --mtls require a
                    # client certificate.
                    public = build(options, requests, mutual=False, parts=parts) if args.https else web.Application()
                    await sites.start("http", answer_challenges(public, agent.challenges.answer), args.http)
                if not await agent.enrol():
                    return
                await _secure(args, options, requests, agent, sites, parts)
            logger.info("serving", name=options.name, kind=options.kind)
            await telemetry.until_stopped()
        finally:
            if agent is not None:
                await agent.stop()
            await sites.close()
            if database is not None:
                await database.close()


async def _secure(
    args: argparse.Namespace, options: Options, requests: Counter, agent: Agent, sites: "Sites", parts: Parts
) -> None:
    if args.mtls:
        context = agent.credentials.server_context(agent.settings.trust)
        parts.groups.watch(context)
        await sites.start("mtls", build(options, requests, mutual=True, parts=parts), args.mtls, context)
    if args.https:
        context = agent.credentials.server_context()
        parts.groups.watch(context)
        await sites.start("https", build(options, requests, mutual=False, parts=parts), args.https, context)
    agent.start()


class Sites:
    """Listeners of one origin server."""

    def __init__(self, telemetry: Telemetry, keepalive: float) -> None:
        self._telemetry, self._keepalive = telemetry, keepalive
        self._runners: list[web.AppRunner] = []

    async def start(
        self, name: str, application: web.Application, at: tuple[str, int], context: ssl.SSLContext | None = None
    ) -> None:
        """Serve *application* on the address *at*.

        Raises:
            OSError: the address cannot be bound; the message is a single line.
        """
        runner = web.AppRunner(
            application,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=self._keepalive,
            shutdown_timeout=DRAIN,
        )
        await runner.setup()
        self._runners.append(runner)
        try:
            await web.TCPSite(runner, at[0], at[1], ssl_context=context, backlog=1024).start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error.strerror
            raise OSError(f"cannot listen on {at[0]}:{at[1]}: {reason}") from None
        port = runner.addresses[0][1]  # the port that the kernel assigned if 0 was requested
        print(f"listening on {at[0]}:{port} ({name})", flush=True)
        self._telemetry.health.set(name, ok=True, detail=f"{at[0]}:{at[1]}")

    async def close(self) -> None:
        """Drain and close all listeners."""
        for runner in reversed(self._runners):
            await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
