"""Counts renewals that come too late if 10,000 hosts renew their certificates within one lifetime.

    python bench/acme_renewals.py [--renewals 10000] [--lifetime 300] [--json]

Each host renews when two thirds of the lifetime have passed; the times are spread evenly over one lifetime, as after
months of operation. A renewal is a complete http-01 order against our ACME server over HTTPS. A renewal is missed if it
fails, or if it ends after the old certificate has expired. All hosts share 100 connections.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import time
from typing import Any

import aiohttp
from acme_orders import Client, challenge_server, name_server, ours
from edge_rig import cpu_seconds

#: Number of ACME clients, each with its own account and connection.
CLIENTS = 100
#: Fraction of the lifetime after which hosts renew.
RENEWAL = 2 / 3


async def renew(directory: str, answers: dict[str, str], renewals: int, lifetime: float) -> list[float | None]:
    """Renew *renewals* certificates within *lifetime* seconds.

    Returns:
        For each renewal, the time from when it was due until it was complete, in seconds; None if it failed.
    """
    delays: list[float | None] = []
    numbers = iter(range(renewals))

    async def work(client: Client, begin: float) -> None:
        for number in numbers:
            due = begin + number * lifetime / renewals
            await asyncio.sleep(due - time.monotonic())  # wait until the host's renewal is due
            try:
                async with asyncio.timeout(lifetime * (1 - RENEWAL)):
                    await client.order()
                delays.append(time.monotonic() - due)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                print(f"renewal failed: {error!r}", file=sys.stderr)
                delays.append(None)

    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(directory, answers)) for _ in range(CLIENTS)]
        begin = time.monotonic()
        await asyncio.gather(*(work(each, begin) for each in clients))
    return delays


async def measure(renewals: int, lifetime: float) -> dict[str, Any]:
    answers: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        folder, dns = stack.enter_context(name_server())
        async with challenge_server(answers) as http01:
            pid, directory = stack.enter_context(ours(folder, dns, http01))
            before = cpu_seconds(pid)
            delays = await renew(directory, answers, renewals, lifetime)
            cpu = cpu_seconds(pid) - before
    done = [each for each in delays if each is not None]
    left = lifetime * (1 - RENEWAL)
    return {
        "renewals": renewals,
        "missed": renewals - sum(each <= left for each in done),
        "median_s": round(statistics.median(done), 3),
        "longest_s": round(max(done), 3),
        "left_s": left,
        "server_cpu_s": round(cpu, 1),
    }


def main(argv: list[str] | None = None) -> int:
    """Run all renewals; return 1 if any of them was missed."""
    parser = argparse.ArgumentParser(prog="acme_renewals", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--renewals", type=int, default=10_000, help="(default 10000)")
    parser.add_argument("--lifetime", type=float, default=300.0, help="of certificates, in seconds (default 300)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    found = asyncio.run(measure(args.renewals, args.lifetime))
    if args.json:
        print(json.dumps(found))
    else:
        print(f"{found['renewals']} renewals within {args.lifetime:g} s: {found['missed']} missed; done "
              f"{found['median_s']} s after they were due (median; longest {found['longest_s']} s, allowed "
              f"{found['left_s']:g} s); CPU time of the server {found['server_cpu_s']} s")  # fmt: skip
    return int(found["missed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
