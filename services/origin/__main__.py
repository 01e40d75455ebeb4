"""Command line of the origin server, ``python -m origin``."""

import argparse
import asyncio
import base64
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from origin import catalog, idempotency, mailbox
from origin import notes as notes_
from origin.application import Options, Parts, answer_challenges, build, request_counter
from origin.database import Database, DatabaseError
from origin.keyring import Keyring, KeyringError
from origin.notes import Notes
from renewal import Agent, RehearsalAgent, add_arguments, from_args
from telemetry import AdminError, Request, Telemetry, endpoint, log
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
    parser.add_argument(
        "--database", type=Path, metavar="FILE", help="where a catalog keeps its items; default: in memory"
    )
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
    agent = RehearsalAgent(from_args(parser, args), telemetry) if args.mtls or args.https else None
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
    parts = Parts(database, before_reply=_crash_switch(telemetry), notes=notes, tap=Tap(telemetry), revoked=revoked)
    async with telemetry.serving(args):
        try:
            if database is not None and notes is not None:
                await database.open(prepare)
                await database.write(lambda _: notes.keyring.create())  # in turn with other processes
                _export(telemetry, database, notes)
            if args.plain:
                await sites.start("plain", build(options, requests, mutual=False, parts=parts), args.plain)
            if agent is not None:
                if args.http:  # start HTTP first: the CA validates over it before a certificate exists
                    # Like the edge, serve the pages of --https on plain HTTP, too. Those of --mtls require a client
                    # certificate.
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


def prepare(db: sqlite3.Connection) -> None:
    """Create the tables, and insert the sample items if the database is new."""
    new = db.execute("PRAGMA user_version").fetchone()[0] == 0
    for statement in "".join(each.SCHEMA for each in (catalog, idempotency, notes_, mailbox)).split(";"):
        db.execute(statement)
    if new:
        catalog.stock(db, time.time())
        db.execute("PRAGMA user_version = 1")


def _crash_switch(telemetry: Telemetry) -> Callable[[], None]:
    """Declare the fault `crash_before_reply`, and return the function that acts on it."""
    telemetry.faults.declare("crash_before_reply", "Die by SIGKILL when a write is on disk, before it is acknowledged")

    def act() -> None:
        if telemetry.faults.any_on and telemetry.faults.hit("crash_before_reply"):
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def _export(telemetry: Telemetry, database: Database, notes: Notes) -> None:
    size = telemetry.metrics.gauge("firstbyte_origin_database_bytes", "Size of the database file")
    waiting = telemetry.metrics.gauge("firstbyte_origin_database_waiting", "Jobs in a queue of the database", "queue")
    telemetry.health.set("database", ok=True, detail=str(database.path or "in memory"))

    def refresh() -> None:
        size.set(database.path.stat().st_size if database.path is not None and database.path.exists() else 0)
        for queue, jobs in database.waiting().items():
            waiting.set(jobs, queue=queue)

    telemetry.metrics.before_render(refresh)

    async def dump(_: Request) -> dict[str, str]:
        return {"base64": base64.b64encode(await database.dump()).decode()}

    def keys(_: Request) -> dict[str, Any]:
        notes.keyring.refresh()
        return {"current": notes.keyring.current, "keys": notes.keyring.ids}

    async def stored(request: Request) -> dict[str, str]:
        key = request.params["id"]
        sealed = await database.read(lambda db: notes_.load(db, key))
        if sealed is None:
            raise AdminError(404, f"there is no note {key!r}")
        return {"key_id": sealed.key_id, "nonce": sealed.nonce.hex(), "sealed": sealed.data.hex()}

    async def rotate(_: Request) -> dict[str, Any]:
        try:
            return await notes.rotate()
        except (DatabaseError, KeyringError, OSError) as error:
            raise AdminError(503, f"the keys were not rotated: {error}") from None

    telemetry.route("GET", "/admin/database", dump)
    telemetry.route("GET", "/admin/notes/{id}", stored)
    telemetry.route("GET", "/admin/keys", keys)
    telemetry.route("POST", "/admin/keys/rotate", rotate)


class Sites:
    """Listeners of one origin server."""

    def __init__(self, telemetry: Telemetry, keepalive: float) -> None:
        self._telemetry, self._keepalive = telemetry, keepalive
        self._runners: list[web.AppRunner] = []

    async def start(self, name: str, application: web.Application, at: tuple[str, int], context: object = None) -> None:
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
            # mypy does not know that `at` has exactly two elements, host and port.
            await web.TCPSite(runner, *at, ssl_context=context, backlog=1024).start()  # type: ignore[arg-type]
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else error.strerror
            raise OSError(f"cannot listen on {at[0]}:{at[1]}: {reason}") from None
        port = runner.addresses[0][1]  # another than requested if that was 0
        print(f"listening on {at[0]}:{port} ({name})", flush=True)
        self._telemetry.health.set(name, ok=True, detail=f"{at[0]}:{at[1]}")

    async def close(self) -> None:
        """Drain and close all listeners."""
        for runner in reversed(self._runners):
            await runner.cleanup()


if __name__ == "__main__":
    sys.exit(main())
