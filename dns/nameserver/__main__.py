"""``python -m nameserver``: serve zones from master files."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import serving
from dnsmessage import Name, NameSyntaxError
from nameserver import access
from nameserver.errors import NameServerError
from nameserver.server import Server, logger
from serving import merging, settings, tls
from telemetry import Telemetry, add_arguments, add_workers, endpoint, log, workers
from telemetry.front import Rules
from telemetry.workers import Worker
from tlsreload import ReloadingContext

#: Admin requests with several workers, each of which has its own query log.
RULES = Rules(merges={"/admin/queries": merging.newest_first})


def zone_file(text: str) -> tuple[str, Path]:
    """Parse ``NAME=FILE`` for argparse; return the zone's origin and the file's path."""
    origin, equals, path = text.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, for example example.com.=example.com.zone; got {text!r}")
    origin = origin if origin.endswith(".") else origin + "."
    try:
        Name.from_text(origin)
    except NameSyntaxError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return origin, Path(path)


def main(argv: list[str] | None = None) -> int:
    """Run the server until SIGTERM and return the exit code; SIGHUP reloads the zone files."""
    parser = argparse.ArgumentParser(
        prog="nameserver",
        description="An authoritative name server.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m nameserver --listen 127.0.0.1:5310 --zone example.com.=dns/zones/example.com.zone\n"
        "  python -m nameserver --listen 127.0.0.1:5310 --zone .=dns/zones/root.zone --admin 127.0.0.1:9901",
    )
    parser.add_argument("--listen", type=endpoint, required=True, metavar="HOST:PORT", help="UDP and TCP address")
    parser.add_argument(
        "--zone", type=zone_file, action="append", required=True, metavar="NAME=FILE", help="may be repeated"
    )
    parser.add_argument(
        "--reuse-port",
        action="store_true",
        help="let other processes listen on the same port (SO_REUSEPORT): one per core, each with its own --admin",
    )
    access.add_arguments(parser)
    add_workers(parser)
    settings.add_arguments(parser)
    tls.add_arguments(parser)
    add_arguments(parser)
    args = parser.parse_args(argv)
    certificates = tls.context_of(args, parser)
    if args.workers > 1 and (args.state or args.update_policy or args.also_notify):
        parser.error(
            "expected no --state, --update-policy or --also-notify with several workers: "
            "an UPDATE reaches only one of them, and only one process can own a journal"
        )
    log.configure("nameserver", args.log_level)
    telemetry = Telemetry("nameserver")
    try:
        server = Server(telemetry, dict(args.zone), access.from_arguments(args), settings.from_arguments(args))
        if args.workers > 1:
            args.listen = serving.reserve(args.listen)
            args.tls = args.tls and serving.reserve(args.tls)
            server.admin.frozen = True
        return workers.run(args, lambda worker: _work(args, telemetry, server, worker, certificates), RULES)
    except NameServerError as error:
        print(f"nameserver: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        return _cannot_listen(error)


def _work(
    args: argparse.Namespace,
    telemetry: Telemetry,
    server: Server,
    worker: Worker,
    certificates: ReloadingContext | None,
) -> int:
    try:
        asyncio.run(_run(args, telemetry, server, worker, certificates))
    except OSError as error:
        return _cannot_listen(error)
    return 0


def _cannot_listen(error: OSError) -> int:
    print(f"nameserver: error: cannot listen on {error.filename}: {error.strerror}", file=sys.stderr)
    return 2


async def _run(
    args: argparse.Namespace,
    telemetry: Telemetry,
    server: Server,
    worker: Worker,
    certificates: ReloadingContext | None,
) -> None:
    async with telemetry.serving(args):
        if worker.again:
            await server.reload_all()  # the files may have changed since the first start
        shared = args.reuse_port or args.workers > 1
        listener = await server.start(args.listen, shared=shared)
        if worker.announces:
            print(f"listening on {serving.show(listener.address)} (udp, tcp)", flush=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, server.on_hangup)
        logger.info("serving", zones=[str(apex) for apex in server.responder.zones])
        guarded = server.policy.guard(server.handle)
        async with tls.listening(args.tls, certificates, guarded, telemetry, shared=shared, announce=worker.announces):
            await telemetry.until_stopped()
        await listener.close()
        server.close()


if __name__ == "__main__":
    sys.exit(main())
