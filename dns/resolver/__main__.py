"""``python -m resolver``: run a recursive resolver that starts from root hints."""

import argparse
import asyncio
import sys
from pathlib import Path

import serving
from dnsmessage import Name
from resolver.cache import MAX_TTL
from resolver.hints import HintsError, load_hints
from resolver.server import Server, logger
from serving import merging, settings
from telemetry import Telemetry, add_arguments, add_workers, endpoint, log, workers
from telemetry.front import Rules
from telemetry.workers import Worker

#: Admin requests with several workers, each of which has its own cache.
RULES = Rules(
    merges={
        "/admin/cache/flush": merging.flushed,
        "/admin/cache": merging.caches,
        "/admin/resolutions": merging.newest_first,
    }
)


def seconds(text: str) -> float:
    """Parse a number of seconds from 0 to one week, for argparse."""
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and int(text) <= MAX_TTL):
        raise argparse.ArgumentTypeError(f"expected seconds from 0 to {MAX_TTL}, got {text!r}")
    return float(text)


def main(argv: list[str] | None = None) -> int:
    """Run the resolver until SIGTERM and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="resolver",
        description="An iterative, caching resolver.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m resolver --listen 127.0.0.1:5300 --hints dns/zones/root.hints\n"
        "  python -m resolver --listen 127.0.0.1:5300 --hints root.hints --admin 127.0.0.1:9900 --log-level debug",
    )
    parser.add_argument("--listen", type=endpoint, required=True, metavar="HOST:PORT", help="UDP and TCP address")
    parser.add_argument("--hints", type=Path, required=True, metavar="FILE", help="root servers, as a master file")
    parser.add_argument(
        "--serve-stale",
        type=seconds,
        default=0.0,
        metavar="SECONDS",
        help="when no server answers, give answers that expired at most this long ago (RFC 8767; default: never)",
    )
    parser.add_argument(
        "--no-qname-minimisation",
        dest="minimise",
        action="store_false",
        help="send the whole name to every server instead of the labels that it needs (RFC 9156)",
    )
    parser.add_argument(
        "--no-mixed-case",
        dest="mixed_case",
        action="store_false",
        help="send names in their own case, not in a random case that a reply has to repeat (0x20)",
    )
    parser.add_argument(
        "--reuse-port",
        action="store_true",
        help="let other processes listen on the same port (SO_REUSEPORT): one per core, each with its own --admin",
    )
    add_workers(parser)
    settings.add_arguments(parser)
    add_arguments(parser)
    args = parser.parse_args(argv)
    log.configure("resolver", args.log_level)
    policy = settings.from_arguments(args)

    def work(worker: Worker) -> int:
        asyncio.run(_run(args, hints, policy, worker))
        return 0

    try:
        hints = load_hints(args.hints)
        if args.workers > 1:
            args.listen = serving.reserve(args.listen)
        return workers.run(args, work, RULES)
    except HintsError as problem:
        print(f"resolver: error: {problem}", file=sys.stderr)
        return 2
    except OSError as problem:
        host, port = args.listen
        print(f"resolver: error: cannot listen on {host}:{port}: {problem.strerror}", file=sys.stderr)
        return 2


async def _run(args: argparse.Namespace, hints: dict[Name, str], policy: serving.Settings, worker: Worker) -> None:
    telemetry = Telemetry("resolver")
    server = Server(
        telemetry,
        hints,
        stale=args.serve_stale,
        minimise=args.minimise,
        mixed_case=args.mixed_case,
        policy=policy,
    )
    async with telemetry.serving(args):
        listener = await server.start(args.listen, shared=args.reuse_port or args.workers > 1)
        if worker.announces:
            print(f"listening on {listener.address[0]}:{listener.address[1]} (udp, tcp)", flush=True)
        logger.info("serving", hints={str(name): address for name, address in hints.items()})
        await telemetry.until_stopped()
        await listener.close()


if __name__ == "__main__":
    sys.exit(main())
