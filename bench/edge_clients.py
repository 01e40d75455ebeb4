"""Compares our edge with nginx under many clients: tail latency, and memory per idle connection.

    python bench/edge_clients.py [--rounds 5] [--connections 10000] [--json]

Latency: both proxies get half of the edge's maximum request rate in alternating rounds, and the medians of the 99th
percentiles are compared. h2load measures latency from the time a request is sent; with enough connections, few requests
have to wait for a free connection. Memory: resident memory per idle TLS connection while all connections are open.
Requires nginx, wrk and h2load.
"""

import argparse
import contextlib
import json
import socket
import ssl
import statistics
import subprocess
import sys
import time
from pathlib import Path

from edge_proxy import by_wrk
from edge_rig import NAME, missing, processes, rig

#: Targets: maximum ratio of the edge's 99th percentile to nginx's, and maximum KiB per idle connection.
BAR_P99, BAR_KIB = 2.0, 24.0
#: Number of connections for the latency measurement, and duration of each measurement in seconds.
CONNECTIONS, SECONDS = 64, 3
#: Minimum ratio of responses to scheduled requests; below it, the machine was too busy and the run is invalid.
KEPT = 0.9


class InvalidError(Exception):
    """The load generator did not reach the requested rate, so the measured latency is invalid."""


def p99_ms(port: int, rate: float, folder: Path) -> float:
    """Send *rate* requests per second to a proxy and return the 99th percentile of their latency in ms."""
    log = folder / "latency.tsv"
    log.unlink(missing_ok=True)
    command = ["h2load", "--h1", f"-c{CONNECTIONS}", "-t1", f"--rps={rate / CONNECTIONS:.3f}", f"-D{SECONDS}",
               "--warm-up-time=1", f"--log-file={log}", f"https://127.0.0.1:{port}/"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    if any(row[1] != "200" for row in rows) or len(rows) < KEPT * rate * SECONDS:
        raise InvalidError(f"expected about {rate * SECONDS:.0f} answers with status 200, got {len(rows)} answers")
    took = sorted(int(row[2]) for row in rows)
    return took[int(0.99 * len(took))] / 1000


def idle_kib(pid: int, port: int, folder: Path, connections: int) -> float:
    """Return a proxy's resident memory per idle TLS connection in KiB, with *connections* connections open."""
    context = ssl.create_default_context(cafile=str(folder / "root.pem"))
    before = _resident_kib(pid)
    with contextlib.ExitStack() as held:
        sockets = []
        for _ in range(connections):
            plain = held.enter_context(socket.create_connection(("127.0.0.1", port)))
            tls = held.enter_context(context.wrap_socket(plain, server_hostname=NAME))
            tls.sendall(f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
            while not tls.recv(65536).endswith(b"hello"):
                pass
            sockets.append(tls)
        took = (_resident_kib(pid) - before) / connections
        for tls in sockets[::100]:  # check that the connections are still open
            tls.sendall(f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
            if not tls.recv(65536).startswith(b"HTTP/1.1 200"):
                raise RuntimeError("expected all idle connections to stay open, got one that was closed")
    return took


def _resident_kib(pid: int) -> int:
    lines = (line for each in processes(pid) for line in Path(f"/proc/{each}/status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def main(argv: list[str] | None = None) -> int:
    """Run both comparisons; return 1 if a target is missed, 4 if the machine was too busy to measure."""
    parser = argparse.ArgumentParser(prog="edge_clients", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="of the latency comparison (default 5)")
    parser.add_argument("--connections", type=int, default=10_000, help="idle connections (default 10000)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if lacking := missing("nginx", "wrk", "h2load"):
        print(lacking)
        return 0
    with rig() as both:
        highest = by_wrk("/", ())(both.ours[1], SECONDS) / SECONDS
        found: dict[str, list[float]] = {"edge": [], "nginx": []}
        try:
            for _ in range(args.rounds):
                for name, _pid, port in both.both:
                    time.sleep(0.2)  # wait until the connections of the last round are closed
                    found[name].append(p99_ms(port, highest / 2, both.folder))
        except InvalidError as error:
            print(f"invalid: {error}: run it on an idle machine")
            return 4
        kib = {name: idle_kib(pid, port, both.folder, args.connections) for name, pid, port in both.both}
    p99 = {name: statistics.median(values) for name, values in found.items()}
    ratio = statistics.median(a / b for a, b in zip(found["edge"], found["nginx"], strict=True))
    if args.json:
        print(json.dumps({"rate": highest / 2, "p99_ms": p99, "p99_ratio": ratio, "kib_per_idle_connection": kib}))
    else:
        print(f"p99 at {highest / 2:.0f} requests/s      edge {p99['edge']:.2f} ms, nginx {p99['nginx']:.2f} ms, "
              f"ratio {ratio:.2f}, bar {BAR_P99}")  # fmt: skip
        print(f"KiB per connection, {args.connections} idle  edge {kib['edge']:.1f}, nginx {kib['nginx']:.1f}, "
              f"bar {BAR_KIB:.0f}")  # fmt: skip
    return int(ratio > BAR_P99 or kib["edge"] > BAR_KIB)


if __name__ == "__main__":
    sys.exit(main())
