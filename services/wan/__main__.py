"""``python -m wan``: run the wide-area network emulator on an existing TUN device."""

import argparse
import asyncio
import gc
import os
import sys
from pathlib import Path

from telemetry import Telemetry, add_arguments, log
from wan import frames, links, tun
from wan.admin import Admin
from wan.captures import FrameCaptures, PacketCaptures
from wan.errors import WanError
from wan.metrics import LATENESS_BUCKETS
from wan.network import Network
from wan.router import Router

#: Thread switch interval of the interpreter, in seconds.  With Python's default of 5 ms, rendering metrics would delay
#: packets.
SWITCH_INTERVAL = 0.0002
#: Time after SIGTERM during which packets in flight are still delivered, in seconds.
DRAIN = 1.0

logger = log.get("wan")


def arguments() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    parser = argparse.ArgumentParser(
        prog="wan",
        description="Delay, pace, drop, corrupt and duplicate packets between regions: "
        "a user-space router on a TUN device.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  ip tuntap add dev wan0 mode tun user 1000 && ip link set wan0 up      (as root, first)
  python -m wan --links /srv/etc/links.toml --tun wan0
  python -m wan --links lab/etc/links.toml --tun wan0 --seed 7 --admin 127.0.0.1:9900 --token-file token""",
    )
    parser.add_argument("--links", type=Path, required=True, metavar="FILE", help="regions and links (TOML)")
    parser.add_argument(
        "--tun", required=True, metavar="NAME", help="an existing TUN device, up and owned by this user"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of every random draw (default 0)")
    add_arguments(parser)
    return parser


async def serve(args: argparse.Namespace, network: Network, fd: int) -> int:
    """Route packets until SIGTERM; return the exit code."""
    telemetry = Telemetry("wan")
    loop = asyncio.get_running_loop()
    late = telemetry.metrics.histogram(
        "firstbyte_wan_lateness_seconds", "How late the first packet of each due batch was written", LATENESS_BUCKETS
    )
    failed: list[OSError] = []

    def on_failure(error: OSError) -> None:
        failed.append(error)
        loop.call_soon_threadsafe(telemetry.stop)

    router = Router(fd, network, max_packet=tun.mtu(args.tun), on_late=late.observe, on_failure=on_failure)
    tap = frames.inherited()
    Admin(telemetry, router, args.tun)
    PacketCaptures(telemetry, router)
    FrameCaptures(telemetry, tap)
    try:
        async with telemetry.serving(args):
            router.start()
            print(
                f"listening on {args.tun} (tun, {len(network.regions)} regions, {len(network.links)} links)", flush=True
            )
            logger.info("started", links=str(args.links), tun=args.tun, seed=args.seed, regions=list(network.regions))
            telemetry.health.set("router", True, args.tun)
            await telemetry.until_stopped()
    finally:
        left = await asyncio.to_thread(router.stop, DRAIN)
        if tap is not None:
            tap.close()
    logger.info("stopped", packets_left=left)
    return 1 if failed else 0


def main(argv: list[str] | None = None) -> int:
    """Run the service; return the exit code."""
    args = arguments().parse_args(argv)
    log.configure("wan", args.log_level)
    try:
        declared = links.load(args.links)
        fd = tun.open_tun(args.tun)
    except WanError as error:
        print(f"wan: error: {error}", file=sys.stderr)
        return 2
    sys.setswitchinterval(SWITCH_INTERVAL)
    gc.freeze()
    try:
        return asyncio.run(serve(args, Network(declared.regions, declared.links, seed=args.seed), fd))
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
