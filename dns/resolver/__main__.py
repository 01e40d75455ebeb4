"""``python -m resolver``: run a recursive resolver that starts from root hints."""

import argparse
import asyncio
import sys

import serving
from dnsmessage import Name
from resolver import command
from resolver.hints import HintsError, load_hints
from resolver.server import logger
from serving import merging, tls
from telemetry import Telemetry, add_arguments, add_workers, log, workers
from telemetry.front import Rules
from telemetry.workers import Worker
from tlsreload import ReloadingContext

#: How admin requests are distributed to the workers and their responses merged; each worker has its own cache.
RULES = Rules(
    merges={
        "/admin/cache/flush": merging.flushed,
        "/admin/cache": merging.caches,
        "/admin/resolutions": merging.newest_first,
        "/admin/queries": merging.newest_first,
    }
)


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
    command.add_arguments(parser)
    parser.add_argument(
        "--reuse-port",
        action="store_true",
        help="let other processes listen on the same port (SO_REUSEPORT): one per core, each with its own --admin",
    )
    add_workers(parser)
    tls.add_arguments(parser)
    add_arguments(parser)
    args = parser.parse_args(argv)
    certificates = tls.context_of(args, parser)
    log.configure("resolver", args.log_level)

    def work(worker: Worker) -> int:
        asyncio.run(_run(args, hints, worker, certificates))
        return 0

    try:
        hints = load_hints(args.hints, ipv6=args.ipv6)
        if args.workers > 1:
            args.listen = serving.reserve(args.listen)
            args.tls = args.tls and serving.reserve(args.tls)
        return workers.run(args, work, RULES)
    except HintsError as problem:
        print(f"resolver: error: {problem}", file=sys.stderr)
        return 2
    except OSError as problem:
        print(f"resolver: error: cannot listen on {problem.filename}: {problem.strerror}", file=sys.stderr)
        return 2


async def _run(
    args: argparse.Namespace, hints: dict[Name, str], worker: Worker, certificates: ReloadingContext | None
) -> None:
    telemetry = Telemetry("resolver")
    server = command.server(args, telemetry, hints)
    async with telemetry.serving(args):
        shared = args.reuse_port or args.workers > 1
        listener = await server.start(args.listen, shared=shared)
        if worker.announces:
            print(f"listening on {serving.show(listener.address)} (udp, tcp)", flush=True)
        logger.info("serving", hints={str(name): address for name, address in hints.items()})
        handler = server.handler()
        async with tls.listening(args.tls, certificates, handler, telemetry, shared=shared, announce=worker.announces):
            await telemetry.until_stopped()
        await listener.close()


if __name__ == "__main__":
    sys.exit(main())
