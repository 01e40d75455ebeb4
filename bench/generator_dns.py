"""Measures how many DNS queries per second one generator process can send; compares it with dnsperf if installed.

    python bench/generator_dns.py [--seconds 3] [--json]

Our generator sends on schedule from one UDP socket and records an exact latency histogram, measured from the scheduled
send time. dnsperf (written in C) sends as fast as it can. The offered rate is increased until our generator falls
behind; that is its capacity. A run at half of the capacity measures lag, the delay behind the schedule. If other
programs keep the machine busy, the lag target is not judged (exit code 4). The server is our name server (`python -m
nameserver`) with 200 names; a quarter of the queries ask for names that do not exist.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from generator import MAX_WAITED, Queries, Schedule, constant

#: Targets: minimum queries per second, and maximum lag (99th percentile) at half of the capacity, in seconds.
QUERIES, LAG = 10_000, 0.005
NAMES = 200
#: Initial rate of the capacity search, in queries per second; and minimum ratio of achieved to offered rate at which
#: the generator counts as keeping up.
PROBE, KEEPS_UP = 5_000.0, 0.95


class BenchError(Exception):
    """The measurement failed; the message describes the cause."""


def names() -> list[str]:
    existing = [f"n{number}.example.com" for number in range(NAMES)]
    return existing + [f"x{number}.example.com" for number in range(NAMES // 3)]


@contextmanager
def nameserver(folder: Path) -> Iterator[int]:
    """Run our name server with the test zone; yield its port."""
    zone = [
        "$ORIGIN example.com.",
        "$TTL 300",
        "@ IN SOA ns1 hostmaster 1 3600 600 86400 300",
        "@ IN NS ns1",
        "ns1 IN A 127.0.0.1",
    ]
    zone += [f"n{number} IN A 192.0.2.{number}" for number in range(NAMES)]
    (folder / "example.com.zone").write_text("\n".join([*zone, ""]))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "nameserver",
        "--listen",
        f"127.0.0.1:{port}",
        "--zone",
        f"example.com.={folder}/example.com.zone",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        if not server.stdout.readline():
            raise BenchError("expected our name server to listen, but it exited")
        yield port
    finally:
        server.terminate()
        server.communicate(timeout=15)


def ours(port: int, rate: float, seconds: float) -> dict[str, Any]:
    """Send queries at *rate* per second; return counts, rates, lag and latency."""
    load = Queries(("127.0.0.1", port), names(), Schedule(constant(rate, seconds)), timeout=1.0)

    async def run() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, stop.set)
        await load.run(stop)

    cpu = time.process_time()
    uvloop.run(run())
    cpu = time.process_time() - cpu
    return {"answered": load.answered, "lost": dict(load.errors), "rcodes": dict(load.rcodes),
            "per_s": round(load.answered / seconds), "per_cpu_s": round(load.answered / cpu),
            "lag_p99_ms": round(load.pacer.lag.percentile(99) * 1e3, 3), "waited": round(load.starvation().waited, 3),
            "p50_ms": round(load.service_time.percentile(50) * 1e3, 3)}  # fmt: skip


def highest(port: int) -> float:
    """Return the highest rate that our generator sustains without losing queries, in queries per second."""
    offered = PROBE
    while True:
        probe = ours(port, offered, 0.5)
        if probe["per_s"] < KEEPS_UP * offered or probe["lost"]:
            return offered / 1.3
        offered *= 1.3


def dnsperf(port: int, folder: Path, seconds: float) -> dict[str, Any] | None:
    """Measure the rate of dnsperf; return None if it is not installed."""
    if shutil.which("dnsperf") is None:
        return None
    (folder / "queries").write_text("".join(f"{name} A\n" for name in names()))
    command = [
        "dnsperf",
        "-s",
        "127.0.0.1",
        "-p",
        str(port),
        "-d",
        str(folder / "queries"),
        "-l",
        f"{seconds:g}",
        "-c",
        "1",
        "-T",
        "1",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    rate = re.search(r"Queries per second:\s+([\d.]+)", ran.stdout)
    lost = re.search(r"Queries lost:\s+(\d+)", ran.stdout)
    if rate is None or lost is None:
        raise BenchError(f"expected dnsperf to report, got: {ran.stderr.strip()[-200:]}")
    return {"per_s": round(float(rate[1])), "lost": int(lost[1])}


def bench(seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, nameserver(Path(name)) as port:
        peer = dnsperf(port, Path(name), seconds)
        rate = highest(port)
        flood = ours(port, rate, seconds)
        half = ours(port, rate / 2, seconds)
    return {"bench": "generator_dns", "seconds": seconds, "names": len(names()),
            "ours": flood, "half_load": half, "dnsperf": peer,
            "ratio": round(flood["per_s"] / peer["per_s"], 3) if peer else None,
            "promise": {"per_s": QUERIES, "lag_p99_ms": LAG * 1e3},
            "machine": {"cpus": os.cpu_count(), "python": sys.version.split()[0], "kernel": os.uname().release},
            "rate_kept": flood["per_s"] >= QUERIES, "lag_kept": half["lag_p99_ms"] <= LAG * 1e3 and not half["lost"],
            "busy": half["waited"] > MAX_WAITED}  # fmt: skip


def table(report: dict[str, Any]) -> str:
    peer, promise = report["dnsperf"], report["promise"]
    lines = [
        f"DNS over UDP: one socket, {report['names']} names, our name server on loopback",
        "generator         answers/s  per CPU-s   ratio  lag p99 ms  p50 ms  lost",
    ]
    for name, figures in (("ours, capacity", report["ours"]), ("ours, half load", report["half_load"])):
        ratio = f"{figures['per_s'] / peer['per_s']:6.2f}" if peer else "     -"
        lines.append(
            f"{name:16}  {figures['per_s']:9,}  {figures['per_cpu_s']:9,}  {ratio}  "
            f"{figures['lag_p99_ms']:10}  {figures['p50_ms']:6}  {sum(figures['lost'].values())}"
        )
    if peer:
        lines.append(f"dnsperf           {peer['per_s']:9,}          -    1.00           -       -  {peer['lost']}")
    else:
        lines.append("dnsperf           skipped: not installed (apt-get install dnsperf)")
    lag = "kept" if report["lag_kept"] else "not judged, the machine was busy" if report["busy"] else "BROKEN"
    lines.append(
        f"target: >= {promise['per_s']:,} answers/s: {'kept' if report['rate_kept'] else 'BROKEN'}; "
        f"at half load lag <= {promise['lag_p99_ms']:g} ms and nothing lost: {lag} "
        f"(waited for a CPU {report['half_load']['waited']:.0%} of the time); {report['machine']}"
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each run")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        report = bench(args.seconds)
    except BenchError as error:
        print(f"generator_dns: error: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        return 130
    print(json.dumps(report) if args.json else table(report))
    if report["rate_kept"] and not report["lag_kept"] and report["busy"]:
        return 4
    return 0 if report["rate_kept"] and report["lag_kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
