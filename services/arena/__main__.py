"""``python -m arena``: serve game snapshots over UDP and TCP."""

import argparse
import asyncio
import sys
from functools import partial

from arena.server import Arena, Datagrams, Streams
from telemetry import Telemetry, add_arguments, endpoint, log

logger = log.get("arena")


async def _serve(args: argparse.Namespace) -> int:
    telemetry, loop = Telemetry("arena"), asyncio.get_running_loop()
    arena = Arena(telemetry.metrics)
    host, port = args.listen
    server = await loop.create_server(partial(Streams, arena), host, port)
    port = server.sockets[0].getsockname()[1]
    transport = None
    try:
        transport, _ = await loop.create_datagram_endpoint(partial(Datagrams, arena), local_addr=(host, port))
        async with telemetry.serving(args):
            print(f"listening on {host}:{port} (UDP, TCP)", flush=True)
            telemetry.health.set("arena", True, f"{host}:{port}")
            await telemetry.until_stopped()
    finally:
        arena.close()
        server.close()
        if transport is not None:
            transport.close()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the service until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="arena",
        description="Send snapshots of a game at a fixed rate, over UDP and over TCP.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python -m arena --listen 127.0.0.1:7777\n"
        "  python -m arena --listen 0.0.0.0:7777 --admin 127.0.0.1:9900 --token-file token",
    )
    parser.add_argument("--listen", type=endpoint, required=True, metavar="HOST:PORT", help="port for UDP and for TCP")
    add_arguments(parser)
    args = parser.parse_args(argv)
    log.configure("arena", args.log_level)
    try:
        return asyncio.run(_serve(args))
    except OSError as error:
        print(f"arena: error: cannot listen on {args.listen[0]}:{args.listen[1]}: {error.strerror}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
