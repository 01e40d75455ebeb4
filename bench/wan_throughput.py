"""Compares `wan` with kernel forwarding by packets per second.

    python bench/wan_throughput.py [--seconds 3] [--repeat 3] [--size 100] [--json]

Host ``a`` sends UDP packets to host ``b`` as fast as one process can (`sendmmsg`); the interface counters of ``b`` show
how many arrive. The three paths are kernel forwarding only, `wan` with a 0 ms link (packets are forwarded immediately),
and `wan` with a 20 ms link (every packet goes through the delay heap). Rounds alternate, and the median is reported.
Requires root; creates its own network namespaces.
"""

import argparse
import ctypes
import json
import os
import signal
import socket
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from wan_namespaces import ADDRESS, BenchError, Network, machine, real_time, write_links

PORT = 9001
BATCH = 64
#: Warm-up time before the measured window, in seconds, so that the path reaches its steady state.
WARM_UP = 0.5
#: Stretch goal for `wan`, in packets per second.
STRETCH = 100_000
PATHS = {"kernel": None, "wan 0 ms": 0.0, "wan 20 ms": 20.0}


def flood(size: int, seconds: float) -> None:
    """Run as host ``a``: send packets for *seconds* and print how many were sent."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((ADDRESS["b"], PORT))
    payload = ctypes.create_string_buffer(size - 28)
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(payload), size - 28), 16)
    # struct mmsghdr (64 bytes): name, name length, iovec pointer, iovec count, then unused fields.
    header = struct.pack("=QQQQQQQQ", 0, 0, ctypes.addressof(vector), 1, 0, 0, 0, 0)
    headers = ctypes.create_string_buffer(header * BATCH, 64 * BATCH)
    send = ctypes.CDLL(None).sendmmsg
    fd, sent, end = sock.fileno(), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        sent += max(0, send(fd, headers, BATCH, 0))
    sock.close()
    print(sent)


def sink() -> None:
    """Run as host ``b``: keep the port open without reading, so that the kernel sends no ICMP errors."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.bind((ADDRESS["b"], PORT))
    print("ready", flush=True)
    signal.pause()


def arrived(network: Network) -> int:
    for line in network.run("b", "cat", "/proc/net/dev").splitlines():
        if line.strip().startswith("eth0:"):
            return int(line.split(":")[1].split()[1])
    raise BenchError("expected the interface eth0 in b, found none")


def cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def measure(network: Network, size: int, seconds: float, wan_pid: int | None) -> dict[str, float]:
    sender = network.start(
        "a", sys.executable, __file__, "--role", "flood", "--size", str(size), "--seconds", str(seconds + 2 * WARM_UP)
    )
    time.sleep(2 * WARM_UP)  # twice the warm-up time, because the sender's interpreter also has to start
    before, cpu, begin = arrived(network), cpu_seconds(wan_pid) if wan_pid else 0.0, time.monotonic()
    time.sleep(max(0.2, seconds - WARM_UP))  # the measured window
    after, took = arrived(network), time.monotonic() - begin
    used = cpu_seconds(wan_pid) - cpu if wan_pid else 0.0
    sender.communicate()
    network.stop(sender)
    return {"packets_per_s": (after - before) / took, "wan_cpu": used / took}


def bench(size: int, seconds: float, repeat: int) -> dict[str, Any]:
    """Measure each path *repeat* times, in alternating rounds."""
    runs: dict[str, list[dict[str, float]]] = {path: [] for path in PATHS}
    with tempfile.TemporaryDirectory() as folder, Network() as network:
        holder = network.start("b", sys.executable, __file__, "--role", "sink")
        assert holder.stdout is not None
        holder.stdout.readline()
        for _ in range(repeat):
            for path, rtt_ms in PATHS.items():
                if rtt_ms is None:
                    runs[path].append(measure(network, size, seconds, None))
                    continue
                wan = network.start_wan(write_links(Path(folder) / "links.toml", rtt_ms), prefix=real_time(1))
                network.through_wan(True)
                runs[path].append(measure(network, size, seconds, wan.pid))
                network.through_wan(False)
                network.stop(wan)
    kernel = statistics.median(run["packets_per_s"] for run in runs["kernel"])
    paths = {}
    for path, measured in runs.items():
        rates = [run["packets_per_s"] for run in measured]
        paths[path] = {
            "packets_per_s": round(statistics.median(rates)),
            "runs": [round(rate) for rate in rates],
            "ratio": round(statistics.median(rates) / kernel, 3),
            "mbit_per_s": round(statistics.median(rates) * size * 8 / 1e6, 1),
            "wan_cpu": round(statistics.median(run["wan_cpu"] for run in measured), 2),
            # On a busy machine this figure is more meaningful than the packet rate.
            "packets_per_wan_cpu_s": round(
                statistics.median(r["packets_per_s"] / (r["wan_cpu"] or 1) for r in measured)
            )
            if PATHS[path] is not None
            else None,
        }
    return {"bench": "wan_throughput", "size": size, "seconds": seconds, "machine": machine(),
            "stretch_packets_per_s": STRETCH, "paths": paths}  # fmt: skip


def table(report: dict[str, Any]) -> str:
    lines = [
        f"wan: packets of {report['size']} bytes from a to b, one sender",
        "path        packets/s   ratio    Mbit/s  wan CPU  per CPU-s  runs",
    ]
    for path, figures in report["paths"].items():
        lines.append(
            f"{path:10}  {figures['packets_per_s']:9,}  {figures['ratio']:6.3f}  {figures['mbit_per_s']:8,}  "
            f"{figures['wan_cpu']:7.2f}  {figures['packets_per_wan_cpu_s'] or 0:9,}  "
            f"{' '.join(f'{rate:,}' for rate in figures['runs'])}"
        )
    lines.append(f"stretch goal {STRETCH:,}/s; {report['machine']}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="per path and round")
    parser.add_argument("--repeat", type=int, default=3, help="rounds")
    parser.add_argument("--size", type=int, default=100, help="bytes of one IP packet")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=("flood", "sink"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not 28 <= args.size <= 1500:
        parser.error(f"expected --size between 28 and 1500, got {args.size}")
    if args.role == "flood":
        flood(args.size, args.seconds)
    elif args.role == "sink":
        sink()
    else:
        try:
            report = bench(args.size, args.seconds, args.repeat)
        except BenchError as error:
            print(f"wan_throughput: error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130
        print(json.dumps(report) if args.json else table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
