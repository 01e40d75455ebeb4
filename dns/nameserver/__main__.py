"""``python -m nameserver``: serve zones from master files and from primaries."""

import argparse
import asyncio
import ipaddress
import signal
import sys
from pathlib import Path

import serving
from dnsmessage import Name, NameSyntaxError
from nameserver import access
from nameserver.access import Access
from nameserver.errors import NameServerError
from nameserver.secondary import PORT, Primary
from nameserver.server import Server, logger
from serving import merging, settings, tls
from telemetry import Telemetry, add_arguments, add_workers, endpoint, log, workers
from telemetry.front import Rules
from telemetry.workers import Worker
from tlsreload import ReloadingContext

#: How the workers' responses to admin requests are merged; each worker has its own query log.
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


def secondary_zone(text: str) -> tuple[Name, list[Primary]]:
    """Parse ``NAME=PRIMARY[,PRIMARY…]`` for argparse; a primary is ``ADDRESS[:PORT][#KEY]``."""
    origin, _, rest = text.partition("=")
    try:
        return Name.from_text(origin.removesuffix(".") + "."), [_primary(each) for each in rest.split(",")]
    except (NameSyntaxError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"expected NAME=ADDRESS[:PORT][#KEY], for example example.com.=192.0.2.53#transfer; got {text!r}: {error}"
        ) from None


def _primary(text: str) -> Primary:
    where, hash_, key = text.partition("#")
    address, colon, port = where.partition(":")
    name = Name.from_text(key.removesuffix(".") + ".") if hash_ else None
    number = int(port) if colon else PORT
    if not 0 < number < 65_536:
        raise ValueError("expected a port from 1 to 65535")
    return Primary(str(ipaddress.IPv4Address(address)), number, name)


def main(argv: list[str] | None = None) -> int:
    """Run the server until SIGTERM and return the exit code; SIGHUP reloads the zone files."""
    parser = argparse.ArgumentParser(
        prog="nameserver",
        description="An authoritative name server.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m nameserver --listen 127.0.0.1:5310 --zone example.com.=dns/zones/example.com.zone\n"
        "  python -m nameserver --listen 127.0.0.1:5310 --zone .=dns/zones/root.zone --admin 127.0.0.1:9901\n"
        "  python -m nameserver --listen 127.0.0.1:5311 --secondary example.com.=127.0.0.1:5310 --state /tmp",
    )
    parser.add_argument("--listen", type=endpoint, required=True, metavar="HOST:PORT", help="UDP and TCP address")
    parser.add_argument(
        "--zone",
        type=zone_file,
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a primary zone; may be repeated",
    )
    parser.add_argument(
        "--secondary",
        type=secondary_zone,
        action="append",
        default=[],
        metavar="NAME=PRIMARY[,PRIMARY…]",
        help="a secondary zone and its primaries, each ADDRESS[:PORT][#KEY]; may be repeated",
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
        server = Server(telemetry, dict(args.zone), _access(args), settings.from_arguments(args), dict(args.secondary))
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


def _access(args: argparse.Namespace) -> Access:
    """Return the access settings; raise `NameServerError` if a key is unknown or no zone is given."""
    found = access.from_arguments(args)
    if not args.zone and not args.secondary:
        raise NameServerError("expected --zone or --secondary, got none")
    if args.secondary and (args.workers > 1 or args.reuse_port):
        raise NameServerError("expected one process with --secondary, because a NOTIFY reaches only one of several")
    for apex, primaries in args.secondary:
        for primary in primaries:
            if primary.key is not None and primary.key not in found.keys:
                raise NameServerError(f"expected the key {primary.key} of {apex} in a --tsig-key file, got none")
    return found


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
